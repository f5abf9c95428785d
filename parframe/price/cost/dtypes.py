"""Dtypes of weights, KV cache and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from parframe.errors import ParframeError, did_you_mean

BYTES: Mapping[str, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5625,
    "int4": 0.51953125,
}
"""Bytes of an element with its scales: ``fp4`` has 8 bits for every 16 elements (NVFP4), ``int4``
has 16 bits and a zero point of 4 bits for every 128 (AWQ, GPTQ)."""

SIXTEEN = 2.0
"""Bytes of an activation and of an unquantized weight, unless all is in ``fp32``."""


@attrs.frozen
class Dtypes:
    """Dtypes of weights, cache and arithmetic of a model.

    Parameters
    ----------
    weights
        Dtype of the weights of matrix products, one of ``BYTES``. Embedding, head, norms and
        routers stay in 16 bits if it has fewer.
    cache
        Dtype of keys and values, one of ``BYTES``.
    activations
        Dtype that matrix products multiply in. None stands for the weights' dtype if it is ``fp8``
        or ``fp4`` and the device supports it, for ``fp32`` if the weights are in it, and for 16
        bits otherwise: weights are then dequantized as they are read (``int8`` and ``int4``).
    """

    weights: str = "bf16"
    cache: str = "bf16"
    activations: str | None = None

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(Dtypes):
            given = getattr(self, field.name)
            if given is not None and given not in BYTES:
                raise ParframeError(
                    "usage",
                    where=field.name,
                    what=f"{given!r} is an unknown dtype",
                    hint=f"use one of {', '.join(BYTES)}{did_you_mean(given, BYTES)}",
                )

    @property
    def plain_bytes(self) -> float:
        """Bytes of an activation, and of an unquantized weight."""
        return BYTES["fp32"] if self.weights == "fp32" else SIXTEEN

    def products(self, rates: Mapping[str, float]) -> str:
        """Return the dtype that matrix products multiply in, on a device with these rates."""
        dtype = self.activations or (self.weights if self.weights in ("fp8", "fp4") else "")
        return dtype if dtype in rates else self.plain(rates)

    def plain(self, rates: Mapping[str, float]) -> str:
        """Return the dtype of all unquantized values: activations, embeddings, attention."""
        if self.weights == "fp32":
            return "fp32"
        return "bf16" if "bf16" in rates or "fp16" not in rates else "fp16"
