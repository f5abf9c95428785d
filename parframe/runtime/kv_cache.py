"""The key-value cache of one device: slots for every row, and what position each holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch

from parframe.errors import ParframeError
from parframe.runtime.cached_program import CONTEXT, Kept
from parframe.sizes import substitute

_NEVER = 1 << 40
"""The position of a slot that holds nothing: later than that of any query."""

_STEP = 256
"""Attention reads slots in multiples of this, so that few lengths are ever compiled."""


@attrs.define
class Cache:
    """Keys and values of rows of tokens, kept between steps.

    Slot 0 of every row takes what is not to be kept. A step first asks for slots (`place`), then
    the module writes into them.

    Parameters
    ----------
    tensors
        By the names of the device's states: rows on axis 0, slots on another.
    axes
        The axis of slots of each.
    positions
        ``[rows, slots]``: the position in the sequence of what a slot holds.
    filled
        ``[rows]``: how many slots of each row are taken.
    """

    tensors: Mapping[str, torch.Tensor]
    axes: Mapping[str, int]
    positions: torch.Tensor
    filled: torch.Tensor
    longest: int = 0
    _viewed: dict[int, tuple[torch.Tensor, dict[str, torch.Tensor]]] = attrs.field(factory=dict)

    @property
    def slots(self) -> int:
        """How many tokens of a row it can hold."""
        return self.positions.shape[1] - 1

    @property
    def bytes(self) -> int:
        """The bytes of all of its tensors."""
        return sum(tensor.nbytes for tensor in (*self.tensors.values(), self.positions))

    def place(self, positions: torch.Tensor, real: torch.Tensor, most: int) -> torch.Tensor:
        """Give the tokens of a step their slots.

        Parameters
        ----------
        positions
            ``[rows, tokens]``: the position of each in the sequence.
        real
            ``[rows, tokens]``: false for what only fills the rows up.
        most
            The largest number of real tokens in a row, which the caller knows.

        Returns
        -------
        torch.Tensor
            ``[rows, tokens]``.

        Raises
        ------
        ParframeError
            Of kind ``run``, if a row has not that many slots left.
        """
        self.longest += most
        if self.longest > self.slots:
            raise ParframeError(
                "run",
                "key-value cache",
                f"{self.longest} tokens do not fit its {self.slots} slots a row",
                "give it more slots (`context`), or shorter prompts and fewer new tokens",
            )
        counted = real.cumsum(1) + self.filled.unsqueeze(1)
        slots = torch.where(real, counted, 0)
        self.positions.scatter_(1, slots, torch.where(real, positions, _NEVER))
        self.filled = counted[:, -1]
        return slots

    def view(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The positions and tensors of the slots that may be in use; they share memory."""
        length = min(self.slots + 1, -(-(self.longest + 1) // _STEP) * _STEP)
        if length not in self._viewed:
            tensors = {
                name: tensor.narrow(self.axes[name], 0, length)
                for name, tensor in self.tensors.items()
            }
            self._viewed[length] = self.positions[:, :length], tensors
        return self._viewed[length]

    def clear(self) -> None:
        """Forget everything."""
        self.positions.fill_(_NEVER)
        self.filled.zero_()
        self.longest = 0


def new_cache(
    kept: Mapping[str, Kept],
    rows: int,
    slots: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Cache:
    """An empty cache.

    Parameters
    ----------
    kept
        A device's caches.
    rows
        How many rows of tokens the device has in a step.
    slots
        How many tokens of a row it can hold.
    device
        Where it lies.
    dtype
        What floating-point values are kept in, if not in their own dtype.
    """
    tensors = {
        name: torch.zeros(
            _shape(own, rows, slots + 1), dtype=_kind(own.dtype, dtype), device=device
        )
        for name, own in kept.items()
    }
    return Cache(
        tensors,
        {name: own.axis for name, own in kept.items()},
        torch.full((rows, slots + 1), _NEVER, dtype=torch.int64, device=device),
        torch.zeros(rows, dtype=torch.int64, device=device),
    )


def _shape(kept: Kept, rows: int, slots: int) -> Sequence[int]:
    names = {str(kept.shape[0]): rows, CONTEXT.name: slots}
    shape = [substitute(size, names) for size in kept.shape]
    for size in shape:
        if not isinstance(size, int):
            raise ParframeError(
                "run", kept.name, f"its size {size} is not known", "partition the model again"
            )
    return [int(size) for size in shape]


def _kind(name: str, wished: torch.dtype | None) -> torch.dtype:
    own: torch.dtype = getattr(torch, name)
    return wished if wished is not None and own.is_floating_point else own
