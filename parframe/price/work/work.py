"""What a step of a plan asks of its devices: kernels, exchanges and what is held, as plain data.

A *step* gives every sequence of a batch some new positions: a prompt's all at once (prefill), or
one (decode). Work is free of batch, lengths, dtypes and hardware, which come with the question,
so that one reading of a plan's device graphs answers for every use.
"""

from __future__ import annotations

from typing import Literal

import attrs

Per = Literal["token", "sequence"]
"""What a kernel is done for: every new position of every row, or the last position of each."""


@attrs.frozen
class Step:
    """The sizes of one step of a whole plan.

    Parameters
    ----------
    sequences
        Sequences in the batch, over all replicas.
    new_tokens
        New positions of each row: a prompt's length in prefill, 1 in decode.
    cached_tokens
        Positions of each row that the cache holds before the step.
    """

    sequences: float
    new_tokens: float
    cached_tokens: float = 0.0


@attrs.frozen(cache_hash=True)
class Product:
    """A matrix product with a weight: ``inner`` to ``columns``, for each token or row.

    ``share`` is the part of the step's tokens that this device computes; ``unquantized`` is true for a
    weight that is left in 16 bits where the others are quantised (the head that gives logits).
    """

    inner: int
    columns: int
    share: float = 1.0
    per: Per = "token"
    unquantized: bool = False
    count: int = 1


@attrs.frozen(cache_hash=True)
class Attention:
    """Queries over keys and values in the cache.

    ``heads`` and ``kv_heads`` are those of this device, ``key_width`` and ``value_width`` the
    width of a head; ``cache_width`` is the elements that the cache has of a position on this device
    (less than ``kv_heads * (key_width + value_width)`` for a latent cache). ``share`` is the part
    of the rows, ``position_share`` the part of the positions of a row that is here.
    """

    heads: int
    kv_heads: int
    key_width: int
    value_width: int
    cache_width: int
    window: int | None = None
    share: float = 1.0
    position_share: float = 1.0
    count: int = 1


@attrs.frozen(cache_hash=True)
class Experts:
    """Feed-forward experts, of which each token visits ``top_k`` of ``experts``.

    ``local_experts`` are on this device, each with ``matrices`` weights of ``hidden * ffn`` (``ffn`` as
    split here). ``share`` is the part of the step's tokens among which this device looks for
    those that chose its experts.
    """

    local_experts: int
    experts: int
    top_k: int
    hidden: int
    ffn: int
    matrices: int = 3
    share: float = 1.0
    count: int = 1


@attrs.frozen(cache_hash=True)
class Pointwise:
    """KernelList that read and write activations alone: norms, activations, residuals, rotations.

    ``elements`` are the elements that one kernel reads and writes for each token or row.
    """

    elements: float
    share: float = 1.0
    per: Per = "token"
    count: int = 1


@attrs.frozen(cache_hash=True)
class Communication:
    """A collective operator, or a send to the next pipeline stage.

    Parameters
    ----------
    kind
        ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all``, ``broadcast``,
        ``send``.
    elements
        Elements of the whole message for each token or row: what is reduced, the gathered
        result, what is scattered, or what a device sends to all in an all-to-all.
    ranks
        The ranks of the group of one device; they tell which links it spans.
    share
        The part of the step's tokens whose elements are in the message.
    """

    kind: str
    elements: float
    ranks: tuple[int, ...]
    share: float = 1.0
    per: Per = "token"
    count: int = 1


Kernel = Product | Attention | Experts | Pointwise


@attrs.frozen
class Footprint:
    """What a device of a stage holds.

    Parameters
    ----------
    weights
        Elements of weights that a quantised model has in its weight dtype.
    unquantized
        Elements that stay in 16 bits: embedding, head, norms, routers.
    cache
        Elements of the caches for a position of a row: ``(elements, window or None)`` for each
        kind of layer, over all its layers.
    batch_share
        The part of the batch's rows that is kept here; of each row, ``position_share`` is the part of
        the positions.
    activations
        Elements of activations alive at once for a token of the step, at most, on this device.
    """

    weights: int
    unquantized: int
    cache: tuple[tuple[int, int | None], ...]
    batch_share: float = 1.0
    position_share: float = 1.0
    activations: float = 0.0


@attrs.frozen(cache_hash=True)
class Stage:
    """The busiest device of one pipeline stage."""

    kernels: tuple[Kernel, ...]
    communication: tuple[Communication, ...]
    footprint: Footprint


@attrs.frozen
class Work:
    """What a step asks of the devices of a plan.

    Parameters
    ----------
    stages
        The pipeline's stages in order.
    devices
        How many devices the plan is for.
    replicas
        Parts that the rows of a batch are divided into outside the experts.
    layers
        Layers of the model.
    """

    stages: tuple[Stage, ...]
    devices: int
    replicas: int = 1
    layers: int = 1
