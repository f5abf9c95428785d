"""Devices as a named grid, and the composites that describe one."""

from parframe.mesh.composite import (
    GRAMMAR,
    Composite,
    format_composite,
    is_code,
    parse_composite,
)
from parframe.mesh.mesh import MAX_DEVICES, MAX_SHARE, Mesh, is_axis
from parframe.mesh.staged_mesh import StagedMesh

__all__ = [
    "GRAMMAR",
    "MAX_DEVICES",
    "MAX_SHARE",
    "Composite",
    "Mesh",
    "StagedMesh",
    "format_composite",
    "is_axis",
    "is_code",
    "parse_composite",
]
