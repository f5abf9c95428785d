"""The dtypes of a question: of weights, of the cache, and of the arithmetic that follows."""

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
"""Bytes of an element, scales included: of ``fp4`` 8 bits for every 16 elements (NVFP4), of
``int4`` 16 bits and a zero point of 4 for every 128 (AWQ, GPTQ)."""

SIXTEEN = 2.0
"""Bytes of an activation and of a table, but where all is in ``fp32``."""


@attrs.frozen
class Dtypes:
    """What a model is held and computed in.

    Parameters
    ----------
    weights
        One of ``BYTES``: of the products' weights; embedding, head, norms and routers stay in 16
        bits where these have fewer.
    cache
        One of ``BYTES``: of keys and values.
    activations
        What products multiply in. None: the weights' own dtype where it is ``fp8`` or ``fp4``
        and the device has such products, ``fp32`` where all is; else 16 bits, into which weights
        are widened as they are read (``int8`` and ``int4`` are weights-only so).
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
                    what=f"{given!r} is no dtype that times are known for",
                    hint=f"use one of {', '.join(BYTES)}{did_you_mean(given, BYTES)}",
                )

    @property
    def plain_bytes(self) -> float:
        """Bytes of an activation, and of a table."""
        return BYTES["fp32"] if self.weights == "fp32" else SIXTEEN

    def products(self, rates: Mapping[str, float]) -> str:
        """Return the dtype that products with weights multiply in, on a device with these rates."""
        asked = self.activations or (self.weights if self.weights in ("fp8", "fp4") else "")
        return asked if asked in rates else self.plain(rates)

    def plain(self, rates: Mapping[str, float]) -> str:
        """Return the dtype of all that is not quantised: activations, tables, attention."""
        if self.weights == "fp32":
            return "fp32"
        return "bf16" if "bf16" in rates or "fp16" not in rates else "fp16"
