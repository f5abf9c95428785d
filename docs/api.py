"""Public API as a page of Markdown, from signatures and docstrings."""

import inspect
import re
from collections.abc import Iterator
from functools import cached_property

import parframe

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}$", re.MULTILINE)


def api() -> str:
    """Return the public names, in alphabetical order, with signatures and docstrings."""
    return "\n\n".join(part for name in sorted(parframe.__all__) for part in _name(name))


def _name(name: str) -> Iterator[str]:
    """Yield the heading, the docstring and the public attributes of a public name."""
    value = getattr(parframe, name)
    yield f"### parframe.{name}"
    yield f"```text\n{name}{_signature(value)}\n```"
    yield from _docstring(inspect.getdoc(value) or "")
    if inspect.isclass(value):
        for attribute, content in sorted(vars(value).items()):
            if not attribute.startswith("_"):
                yield from _attribute(attribute, content)


def _attribute(name: str, value: object) -> Iterator[str]:
    """Yield a function, method or property with its docstring; data has none."""
    if isinstance(value, property | cached_property):
        getter = value.fget if isinstance(value, property) else value.func
        yield f"**`{name}`**"
        yield from _docstring(inspect.getdoc(getter) or "")
        return
    function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
    if inspect.isfunction(function):
        yield f"**`{name}{_signature(function)}`**"
        yield from _docstring(inspect.getdoc(function) or "")


def _signature(value: object) -> str:
    """Return the signature of a function or class without annotations."""
    try:
        signature = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return re.sub(r"<factory>|NOTHING|<object object at \w+>", "...", str(bare))


def _docstring(text: str) -> Iterator[str]:
    """Yield the summary and the sections of a numpydoc docstring as Markdown."""
    parts = _SECTION.split(text)
    if parts[0].strip():
        yield parts[0].strip().replace("``", "`")
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        if title == "Examples":
            yield f"```python\n{body.strip()}\n\n```"
        elif title in ("Parameters", "Returns", "Yields", "Raises", "Attributes"):
            yield f"{title}:\n\n" + "\n".join(_entries(inspect.cleandoc(body)))
        else:
            yield f"{title}: {body.strip()}".replace("``", "`")


def _entries(body: str) -> Iterator[str]:
    """Yield each entry of a section as an item of a list."""
    head, lines = "", []
    for line in [*body.splitlines(), "end"]:
        if line[:1].strip():
            if head:
                text = " ".join(part.strip() for part in lines if part.strip())
                yield f"- `{head}`: {text}".replace("``", "`").rstrip(": ")
            head, lines = line.strip(), []
        else:
            lines.append(line)
