"""Key-value cache of one device: slots for every row, and the position in each slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch

from parframe.errors import ParframeError
from parframe.runtime.cached_program import CONTEXT, CacheSpec
from parframe.sizes import substitute

_EMPTY_POSITION = 1 << 40
"""Position of an empty slot: later than that of any query, so that causal attention skips it."""

_VIEW_STEP = 256
"""Attention reads slots in multiples of this, so that few lengths are compiled."""


@attrs.define
class KVCache:
    """Cached keys and values, or latents, of the rows of a batch.

    Slot 0 of every row is for padding. A step first assigns slots (`assign_slots`), then the module
    writes into them. The tensors, by the names of the device's states, have rows on dim 0 and slots
    on another dim. ``positions`` (``[rows, slots]``) are those of the tokens in the sequence;
    ``lengths`` (``[rows]``) count the slots in use, and ``max_length`` limits them without reading
    the device.
    """

    tensors: Mapping[str, torch.Tensor]
    position_dims: Mapping[str, int]
    positions: torch.Tensor
    lengths: torch.Tensor
    max_length: int = 0
    _views: dict[int, tuple[torch.Tensor, dict[str, torch.Tensor]]] = attrs.field(factory=dict)

    @property
    def slots(self) -> int:
        """Number of tokens of a row that fit."""
        return self.positions.shape[1] - 1

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in (*self.tensors.values(), self.positions))

    def assign_slots(self, positions: torch.Tensor, real: torch.Tensor, most: int) -> torch.Tensor:
        """Assign slots (``[rows, tokens]``) to the tokens of a step.

        ``positions`` and ``real`` (``[rows, tokens]``) are the tokens' positions in the sequence,
        and false for padding; ``most`` is the largest number of real tokens in a row. An error of
        kind ``run`` reports a row with fewer free slots.
        """
        self.max_length += most
        if self.max_length > self.slots:
            raise ParframeError(
                "run",
                "key-value cache",
                f"{self.max_length} tokens do not fit its {self.slots} slots per row",
                "give it more slots (`context`), or use shorter prompts and fewer new tokens",
            )
        counted = real.cumsum(1) + self.lengths.unsqueeze(1)
        slots = torch.where(real, counted, 0)
        self.positions.scatter_(1, slots, torch.where(real, positions, _EMPTY_POSITION))
        self.lengths = counted[:, -1]
        return slots

    def view(self) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return views of the positions and tensors, without slots that are surely empty."""
        length = min(self.slots + 1, -(-(self.max_length + 1) // _VIEW_STEP) * _VIEW_STEP)
        if length not in self._views:
            tensors = {
                name: tensor.narrow(self.position_dims[name], 0, length)
                for name, tensor in self.tensors.items()
            }
            self._views[length] = self.positions[:, :length], tensors
        return self._views[length]

    def clear(self) -> None:
        """Empty all slots."""
        self.positions.fill_(_EMPTY_POSITION)
        self.lengths.zero_()
        self.max_length = 0


def allocate_cache(
    specs: Mapping[str, CacheSpec],
    rows: int,
    slots: int,
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> KVCache:
    """Allocate an empty cache for a number of rows, with slots for as many tokens of each row.

    Floating-point values have ``dtype``; the model's own if None.
    """
    tensors = {
        name: torch.zeros(
            _shape(spec, rows, slots + 1), dtype=_cache_dtype(spec.dtype, dtype), device=device
        )
        for name, spec in specs.items()
    }
    return KVCache(
        tensors,
        {name: spec.position_dim for name, spec in specs.items()},
        torch.full((rows, slots + 1), _EMPTY_POSITION, dtype=torch.int64, device=device),
        torch.zeros(rows, dtype=torch.int64, device=device),
    )


def _shape(spec: CacheSpec, rows: int, slots: int) -> Sequence[int]:
    sizes = {str(spec.shape[0]): rows, CONTEXT.name: slots}
    shape = [substitute(size, sizes) for size in spec.shape]
    for size in shape:
        if not isinstance(size, int):
            raise ParframeError(
                "run", spec.name, f"its size {size} is not known", "partition the model again"
            )
    return [int(size) for size in shape]


def _cache_dtype(name: str, requested: torch.dtype | None) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, name)
    return requested if requested is not None and dtype.is_floating_point else dtype
