"""Lists of a size's numbers, as ``torch.tensor(list(range(size)))``, exported at every size.

Python makes such a list as long as the example's size. While a module is exported, ``range`` and
``list`` in the files of its own classes leave a range of a size that may vary as it is, and a
tensor made of it is an ``arange``. Whatever else is done with such a range is refused.
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

from parframe.loading.flat_graph import Program

_LOCK = threading.RLock()


class SizeRangeError(Exception):
    """A model does something with the numbers below a size that fixes the size."""


def _refuse(*_: Any) -> NoReturn:
    raise SizeRangeError("a range of a size that may vary is used otherwise than in a tensor")


@attrs.frozen(eq=False)
class SizeRange:
    """The numbers of a range between sizes, as a range or as a list."""

    kind: type
    _start: Any
    _stop: Any
    _step: int
    _backward: bool = False

    def __getitem__(self, key: Any) -> SizeRange:
        if not isinstance(key, slice) or key != slice(None, None, -1):
            _refuse()
        return attrs.evolve(self, backward=not self._backward)

    def tensor(self, dtype: Any, device: Any) -> torch.Tensor:
        """The numbers as a tensor, which is of whole numbers even where there are none."""
        numbers = torch.arange(
            self._start, self._stop, self._step, dtype=dtype or torch.long, device=device
        )
        return numbers.flip(0) if self._backward else numbers

    __iter__ = __len__ = __bool__ = __contains__ = __eq__ = _refuse
    __hash__ = None  # type: ignore[assignment]


def with_size_ranges(module: torch.nn.Module, load: Callable[[], Program]) -> Program | None:
    """What ``load`` makes of a module with its ranges of sizes left open; None if it has none.

    Raises
    ------
    SizeRangeError
        If the module's code does something else with such a range.
    """
    ranges = _Tensors()
    with _shadowed(module, ranges), ranges:
        try:
            return load()
        except Exception:
            if ranges.used:
                raise
            return None


class _Tensors(TorchFunctionMode):
    """Makes tensors of ranges of sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.used = False  # whether there was such a range

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = func in (torch.tensor, torch.as_tensor)
        if not makes or len(args) != 1 or not isinstance(args[0], SizeRange):
            return func(*args, **kwargs)
        if kwargs.keys() - {"dtype", "device"}:
            _refuse()
        return args[0].tensor(kwargs.get("dtype"), kwargs.get("device"))

    def ranged(self, *ends: Any) -> Any:
        """What ``range`` makes: left open where one of the ends is a size that may vary."""
        if not any(map(_is_open, ends)):
            return range(*ends)
        start, stop, step = (0, *ends, 1) if len(ends) == 1 else (*ends, 1)[:3]
        self.used = True
        if not isinstance(step, int) or step == 0:
            raise SizeRangeError("the step of a range is a size that may vary, or 0")
        return SizeRange(range, start, stop, step)

    def listed(self, *parts: Any) -> Any:
        """What ``list`` makes: left open where it is of such a range."""
        if len(parts) == 1 and isinstance(parts[0], SizeRange):
            return attrs.evolve(parts[0], kind=list)
        return list(*parts)


def _is_open(value: Any) -> bool:
    return isinstance(value, torch.SymInt) and value.node.maybe_as_int() is None


class _Shadow(type):
    """A class that is like one of Python's own, but for what calling it makes."""

    own: Any
    made: Callable[..., Any]

    def __call__(cls, *args: Any) -> Any:
        return cls.made(*args)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.own, name)

    def __getitem__(cls, key: Any) -> Any:
        return cls.own[key]

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, cls.own) or (
            isinstance(value, SizeRange) and value.kind is cls.own
        )

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, cls.own)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.own

    def __hash__(cls) -> int:
        return hash(cls.own)


@contextmanager
def _shadowed(module: torch.nn.Module, tensors: _Tensors) -> Iterator[None]:
    """Leave ranges of sizes open in the files of a module's own classes, for a while."""
    shadows = {
        own.__name__: _Shadow(own.__name__, (), {"own": own, "made": staticmethod(made)})
        for own, made in ((range, tensors.ranged), (list, tensors.listed))
    }
    with _LOCK:
        names = {type(part).__module__ for part in module.modules()}
        files = [
            vars(sys.modules[name])
            for name in names
            if name in sys.modules and name.split(".")[0] != "torch" and _is_plain(name, shadows)
        ]
        try:
            for file in files:
                file.update(shadows)
            yield
        finally:
            for file in files:
                for name in shadows:
                    del file[name]


def _is_plain(name: str, shadows: Mapping[str, Any]) -> bool:
    """Whether a file means Python's own by these names and asks of nothing whether it is them."""
    file = sys.modules[name]
    if vars(file).keys() & shadows.keys():
        return False
    try:
        tree = ast.parse(inspect.getsource(file))
    except (TypeError, OSError, SyntaxError):
        return False
    return not any(
        isinstance(node, ast.Compare)
        and any(isinstance(sign, ast.Is | ast.IsNot) for sign in node.ops)
        and any(isinstance(x, ast.Name) and x.id in shadows for x in (node.left, *node.comparators))
        for node in ast.walk(tree)
    )
