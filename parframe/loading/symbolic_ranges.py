"""Ranges over symbolic sizes, as in ``torch.tensor(list(range(size)))``, exported for every size.

Python builds such a list with the length of the example. While a module is exported, ``range`` and
``list`` in the files of its classes keep a range over a symbolic size symbolic, and a tensor made
of it becomes an ``arange``. Any other use of such a range is refused.
"""

from __future__ import annotations

import ast
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import attrs
import torch
from torch.overrides import TorchFunctionMode

from parframe.loading.flat_graph import FlatGraph

_LOCK = threading.RLock()


class SizeRangeError(Exception):
    """Use of a range over a symbolic size that would fix the size."""


def _refuse(*_: Any) -> NoReturn:
    raise SizeRangeError("a range over a size that may vary is used for other than a tensor")


@attrs.frozen(eq=False)
class SymbolicRange:
    """Range between symbolic sizes, in place of a ``range`` or of a ``list`` of one."""

    kind: type
    _start: Any
    _stop: Any
    _step: int
    _reversed: bool = False

    def __getitem__(self, key: Any) -> SymbolicRange:
        if not isinstance(key, slice) or key != slice(None, None, -1):
            _refuse()
        return attrs.evolve(self, reversed=not self._reversed)

    def tensor(self, dtype: Any, device: Any) -> torch.Tensor:
        """Return the numbers as a tensor, of an integer dtype even if it is empty."""
        numbers = torch.arange(
            self._start, self._stop, self._step, dtype=dtype or torch.long, device=device
        )
        return numbers.flip(0) if self._reversed else numbers

    __iter__ = __len__ = __bool__ = __contains__ = __eq__ = _refuse
    __hash__ = None  # type: ignore[assignment]


def export_symbolic_ranges(
    module: torch.nn.Module, export: Callable[[], FlatGraph]
) -> FlatGraph | None:
    """Export a module with its ranges over sizes kept symbolic; None if it fails and has none.

    Raises
    ------
    SizeRangeError
        If the module's code uses such a range for other than a tensor.
    """
    mode = _RangeMode()
    with _replaced_builtins(module, mode), mode:
        try:
            return export()
        except Exception:
            if mode.used:
                raise
            return None


class _RangeMode(TorchFunctionMode):
    """Mode in which symbolic ranges become tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.used = False  # whether a symbolic range was made

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes_tensor = func in (torch.tensor, torch.as_tensor)
        if not makes_tensor or len(args) != 1 or not isinstance(args[0], SymbolicRange):
            return func(*args, **kwargs)
        if kwargs.keys() - {"dtype", "device"}:
            _refuse()
        return args[0].tensor(kwargs.get("dtype"), kwargs.get("device"))

    def make_range(self, *ends: Any) -> Any:
        """Make a range, symbolic if one of its ends is a size that may vary."""
        if not any(map(_is_symbolic, ends)):
            return range(*ends)
        start, stop, step = (0, *ends, 1) if len(ends) == 1 else (*ends, 1)[:3]
        self.used = True
        if not isinstance(step, int) or step == 0:
            raise SizeRangeError("the step of a range is a size that may vary, or 0")
        return SymbolicRange(range, start, stop, step)

    def make_list(self, *parts: Any) -> Any:
        """Make a list, symbolic if it is of a symbolic range."""
        if len(parts) == 1 and isinstance(parts[0], SymbolicRange):
            return attrs.evolve(parts[0], kind=list)
        return list(*parts)


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, torch.SymInt) and value.node.maybe_as_int() is None


class _BuiltinProxy(type):
    """Class that behaves as a builtin class, except that another function makes its instances."""

    builtin: Any
    make: Callable[..., Any]

    def __call__(cls, *args: Any) -> Any:
        return cls.make(*args)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.builtin, name)

    def __getitem__(cls, key: Any) -> Any:
        return cls.builtin[key]

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.builtin) or (
            isinstance(value, SymbolicRange) and value.kind is cls.builtin
        )

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.builtin)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.builtin

    def __hash__(cls) -> int:
        return hash(cls.builtin)


@contextmanager
def _replaced_builtins(module: torch.nn.Module, mode: _RangeMode) -> Iterator[None]:
    """Replace ``range`` and ``list`` in the files of a module's classes while the context lasts."""
    proxies = {
        builtin.__name__: _BuiltinProxy(
            builtin.__name__, (), {"builtin": builtin, "make": staticmethod(make)}
        )
        for builtin, make in ((range, mode.make_range), (list, mode.make_list))
    }
    with _LOCK:
        names = {type(part).__module__ for part in module.modules()}
        files = [
            vars(sys.modules[name])
            for name in names
            if name in sys.modules
            and name.split(".")[0] != "torch"
            and _can_be_replaced(name, proxies)
        ]
        try:
            for file in files:
                file.update(proxies)
            yield
        finally:
            for file in files:
                for name in proxies:
                    del file[name]


def _can_be_replaced(name: str, proxies: Mapping[str, Any]) -> bool:
    """Return whether a file neither redefines these builtins nor compares with them by ``is``."""
    file = sys.modules[name]
    if vars(file).keys() & proxies.keys():
        return False
    try:
        tree = ast.parse(inspect.getsource(file))
    except (TypeError, OSError, SyntaxError):
        return False
    return not any(
        isinstance(node, ast.Compare)
        and any(isinstance(sign, ast.Is | ast.IsNot) for sign in node.ops)
        and any(isinstance(x, ast.Name) and x.id in proxies for x in (node.left, *node.comparators))
        for node in ast.walk(tree)
    )
