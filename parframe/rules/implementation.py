"""Functions that compute operators, named by their paths so that rules need no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from parframe.errors import ParframeError

Implementation: TypeAlias = "str | Callable[..., Any]"
"""A function, or where it is: ``"package.module:function"``."""


def load_function(implementation: Implementation) -> Callable[..., Any]:
    """Return the function that an implementation names, importing its module.

    An error of kind ``rule`` reports a module or function that does not exist.
    """
    return _import(implementation) if isinstance(implementation, str) else implementation


@cache
def _import(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        function: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ParframeError(
            "rule", path, f"no such function ({error})", "write it as 'package.module:function'"
        ) from error
    return function
