"""`parframe plugins`: lists the installed plugins, from their metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from rich.console import RenderableType

from parframe import hooks
from parframe.cli.answer import Answer, answers
from parframe.report.screen import heading, table


@answers("plugins")
def command() -> Answer:
    """List the installed plugins without importing them."""
    facts = [
        {
            "distribution": info.distribution,
            "version": info.version,
            "name": info.name,
            "codes": list(info.codes),
            "module": info.module,
        }
        for info in hooks.installed()
    ]
    return Answer({"plugins": facts}, partial(_draw, facts))


def _draw(facts: Sequence[dict[str, Any]]) -> Iterator[RenderableType]:
    yield heading("Plugins", "" if facts else "none is installed")
    rows = ([", ".join(f["codes"]), f["distribution"], f["version"], f["module"]] for f in facts)
    if facts:
        yield table(("code", "distribution", "version", "module"), rows)
