"""Work of one inference step: kernels, communication and memory of each device, as plain data.

A *step* gives every sequence of a batch some new tokens: all tokens of a prompt (prefill), or one
(decode). Work does not depend on batch size, lengths, dtypes or hardware, so a plan's device graphs
are read once for all of them.
"""

from __future__ import annotations

from typing import Literal

import attrs

Per = Literal["token", "sequence"]
"""Unit that a kernel is repeated for: every new token, or every sequence (its last token only)."""


@attrs.frozen
class Step:
    """Sizes of one step of a whole plan.

    Parameters
    ----------
    sequences
        Number of sequences in the batch, over all replicas.
    new_tokens
        New tokens of each sequence: the prompt's length in prefill, 1 in decode.
    cached_tokens
        Tokens of each sequence in the KV cache before the step.
    """

    sequences: float
    new_tokens: float
    cached_tokens: float = 0.0

    def count(self, per: Per) -> float:
        """Return the number of new tokens, or of sequences."""
        return self.sequences * self.new_tokens if per == "token" else self.sequences


@attrs.frozen(cache_hash=True)
class Product:
    """Matrix product with a weight.

    Parameters
    ----------
    inner, columns
        Sizes of the weight: ``inner`` is contracted.
    share
        Part of the step's tokens that this device computes.
    per
        Unit of the rows: tokens, or sequences.
    unquantized
        True for a weight that stays in 16 bits in a quantized model, such as the output head.
    count
        Number of equal kernels.
    """

    inner: int
    columns: int
    share: float = 1.0
    per: Per = "token"
    unquantized: bool = False
    count: int = 1


@attrs.frozen(cache_hash=True)
class Attention:
    """Attention of queries to the keys and values in the cache.

    Parameters
    ----------
    heads, kv_heads
        Query heads and key-value heads on this device.
    key_width, value_width
        Elements of a key and of a value of one head.
    cache_width
        Elements that this device caches for each position of a sequence. It is less than
        ``kv_heads * (key_width + value_width)`` for a latent cache (MLA).
    window
        Length of the sliding window, or None.
    share
        Part of the batch's sequences on this device.
    position_share
        Part of each sequence's positions on this device.
    count
        Number of equal kernels.
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
    """Feed-forward experts of one layer.

    Parameters
    ----------
    local_experts
        Experts on this device.
    experts
        Experts of the layer.
    top_k
        Experts that each token visits.
    hidden, ffn
        Sizes of an expert's weights, ``ffn`` as split on this device.
    matrices
        Number of weights of ``hidden * ffn`` in each expert.
    share
        Part of the step's tokens from which this device receives the tokens of its experts.
    count
        Number of equal kernels.
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
    """Fused kernel that only reads and writes activations, such as a norm or an activation.

    Parameters
    ----------
    elements
        Elements that one kernel reads and writes for each token or sequence.
    share
        Part of the step's tokens that this device computes.
    per
        Unit of ``elements``.
    count
        Number of equal kernels.
    """

    elements: float
    share: float = 1.0
    per: Per = "token"
    count: int = 1


@attrs.frozen(cache_hash=True)
class Communication:
    """Collective, or a send to another pipeline stage.

    Parameters
    ----------
    kind
        ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all``, ``broadcast`` or
        ``send``.
    elements
        Elements of the whole message for each token or sequence: the reduced tensor, the gathered
        result, the tensor that is scattered, or all that one device sends in an all-to-all.
    ranks
        Ranks of one device's group. They determine the links that the group spans.
    share
        Part of the step's tokens whose elements are in the message.
    per
        Unit of ``elements``.
    count
        Number of equal operators.
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
    """Elements that a device of a stage stores.

    Parameters
    ----------
    weights
        Elements of weights that a quantized model stores in its weight dtype.
    unquantized
        Elements of weights that stay in 16 bits: embedding, output head, norms, routers.
    cache
        Cached elements for each position of a sequence: ``(elements, window or None)`` for each
        kind of layer, over all its layers.
    batch_share
        Part of the batch's sequences that are cached on this device.
    position_share
        Part of each sequence's positions that are cached on this device.
    activations
        Peak elements of activations for each token of the step.
    """

    weights: int
    unquantized: int
    cache: tuple[tuple[int, int | None], ...]
    batch_share: float = 1.0
    position_share: float = 1.0
    activations: float = 0.0


@attrs.frozen(cache_hash=True)
class Stage:
    """Work of the busiest device of one pipeline stage."""

    kernels: tuple[Kernel, ...]
    communication: tuple[Communication, ...]
    footprint: Footprint


@attrs.frozen
class Work:
    """Work of one step on the devices of a plan.

    Parameters
    ----------
    stages
        Pipeline stages in order.
    devices
        Number of devices of the plan.
    replicas
        Number of parts that the batch is split into outside the experts.
    layers
        Number of layers of the model.
    """

    stages: tuple[Stage, ...]
    devices: int
    replicas: int = 1
    layers: int = 1
