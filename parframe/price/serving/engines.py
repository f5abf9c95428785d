"""Serving engines as data: overheads per step, batch limits and memory reserves."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import attrs

from parframe.errors import ParframeError, did_you_mean
from parframe.hardware import Machine

MEDIAN = "median"
"""Name of the entry for engines that were not measured: the median of those that were."""


@attrs.frozen
class Engine:
    """Fitted constants of a serving engine.

    Parameters
    ----------
    name
        Its name in tables.
    aliases
        Spellings that select it. An alias matches a framework name that contains it; the longest
        match wins. An alias that begins with ``=`` must be the whole name.
    matmul, attention, communication
        Time of these kernels in the engine, as a factor of the time that they take alone.
    experts
        Time factor of expert matmuls, relative to that of other matmuls.
    kv_reread
        Part of the KV cache that a decode step reads again for every further query head that
        shares it, where kernels process each query head by itself.
    step_overhead
        Seconds per step outside kernels.
    layer_overhead
        Seconds per step and layer outside kernels.
    sequence_overhead
        Seconds per step and sequence outside kernels: sampling, detokenization, streaming.
    launch_overhead
        Seconds that the CPU needs to launch the kernels of a layer. Devices wait where they are
        faster. Zero where a step is one CUDA graph.
    stage_overlap
        Overlap of pipeline stages: 1 all work at once, 0 one after the other.
    max_batched_tokens
        Maximum number of new tokens in a step, prefill and decode together.
    max_sequences
        Maximum number of running sequences.
    sliding_window
        Whether it uses sliding windows: stores and reads no more positions than a window has.
    reserved_bytes
        Bytes of a device that neither weights, activations nor the KV cache can use.
    cache_fraction
        Fraction of the remaining memory that the KV cache may use.
    fraction_of_total
        Whether that fraction is of the total memory instead, from which weights, activations and
        the reserve are then subtracted.
    request_overhead
        Seconds per request outside all steps: network, tokenization.
    prefill_overhead
        Additional seconds per layer of a step with prefill whose kernels are launched one by one.
    stage_overhead
        Seconds for each further pipeline stage that a token passes: work of the CPU there, and
        the return of the token.
    static_batching
        Whether it serves a batch of requests to its end before the next batch begins.
    all_logits
        Whether the head computes logits of every position of a prompt.
    admission_wait
        Number of other requests that have to finish before a new one starts, where the maximum
        number is running.
    prefill_burst
        Prompts of others that a request waits for, as a fraction of the concurrency, because
        clients send at the same time.
    fitted
        Names of the constants that are fitted to measurements; the others follow from how the
        engine is known to work.
    residual
        Standard deviation of the logarithm of measured over predicted, held out, by kind of
        metric (``throughput``, ``tpot``, ``ttft``, ``e2e_latency``).
    kernel_error
        Error of kernels and communication by themselves in the fitted rows. An interval is
        widened only for kernel errors beyond it.
    fitted_models, fitted_devices
        Models and devices of the rows that it was fitted to.
    unseen_model, unseen_device
        Additional error for any other model or device.
    sources
        Tables that it was fitted to, each with its number of rows.
    """

    name: str
    aliases: tuple[str, ...] = ()
    matmul: float = 1.0
    experts: float = 1.0
    attention: float = 1.0
    communication: float = 1.0
    kv_reread: float = 0.0
    step_overhead: float = 1e-3
    layer_overhead: float = 0.0
    sequence_overhead: float = 0.0
    launch_overhead: float = 0.0
    stage_overlap: float = 1.0
    max_batched_tokens: int = 8192
    max_sequences: int = 4096
    sliding_window: bool = True
    reserved_bytes: float = 2e9
    cache_fraction: float = 0.9
    fraction_of_total: bool = False
    request_overhead: float = 0.0
    admission_wait: float = 0.0
    prefill_burst: float = 0.0
    prefill_overhead: float = 0.0
    stage_overhead: float = 0.0
    static_batching: bool = False
    all_logits: bool = False
    residual: Mapping[str, float] = attrs.field(factory=dict, hash=False)
    fitted: tuple[str, ...] = ()
    kernel_error: float = 0.0
    fitted_models: tuple[str, ...] = ()
    fitted_devices: tuple[str, ...] = ()
    unseen_model: float = 0.0
    unseen_device: float = 0.0
    sources: Mapping[str, int] = attrs.field(factory=dict, hash=False)

    def with_constants(self, constants: Mapping[str, float]) -> Engine:
        """Return this engine with new values of the named constants."""
        fields: dict[str, Any] = dict(constants)
        return attrs.evolve(self, **fields)

    @property
    def measured(self) -> bool:
        """True if the constants were fitted to measurements of this engine."""
        return self.name != MEDIAN

    def cache_budget(self, total: float, weights: float, activations: float) -> float:
        """Return the bytes left for the KV cache on a device, which may be negative."""
        taken = weights + self.reserved_bytes + activations
        return share_of(total, taken, self.cache_fraction, self.fraction_of_total)


def share_of(total: float, taken: float, fraction: float, of_total: bool) -> float:
    """Return a fraction of the total memory less what is taken, or of what is left of it."""
    if of_total:
        return total * fraction - taken
    return (total - taken) * fraction


@cache
def shipped_engines() -> tuple[Engine, ...]:
    """Return the engines that ship, the median engine last."""
    text = resources.files("parframe.price").joinpath("data", "engines.toml").read_text("utf-8")
    return parse_engines(text)


def parse_engines(text: str) -> tuple[Engine, ...]:
    """Return the engines of a TOML text."""
    entries = tomllib.loads(text)["engine"]
    return tuple(_make_engine(name, entry) for name, entry in entries.items())


def find_engine_on(machine: Machine, framework: str = "") -> Engine:
    """Return an engine by its name: as measured on the machine, else as it ships.

    Without a name, return the first engine that was measured on the machine, or the median engine.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if the machine's file has an invalid engine entry.
    """
    own = tuple(
        _validate_entry(f"{machine.name}: engine.{name}", name, entry)
        for name, entry in machine.engines.items()
    )
    if own and not framework:
        return own[0]
    return find_engine(framework, (*shipped_engines(), *own))


def find_engine(framework: str | None, engines: tuple[Engine, ...] | None = None) -> Engine:
    """Return the engine that a framework's name refers to, as ``TensorRT-LLM 0.17`` or ``vLLM``.

    An unknown or empty name returns the median engine, whose ``measured`` is false. The engines
    that ship are searched unless others are given.
    """
    candidates = shipped_engines() if engines is None else engines
    spelling = normalize_name(framework or "")
    best: tuple[int, Engine] | None = None
    for candidate in candidates:
        for alias in candidate.aliases:
            whole, wanted = alias.startswith("="), normalize_name(alias)
            if not wanted or (spelling != wanted if whole else wanted not in spelling):
                continue
            length = len(wanted) + (1000 if whole else 0)
            if best is None or length > best[0]:
                best = (length, candidate)
    return best[1] if best else next(engine for engine in candidates if not engine.measured)


def normalize_name(name: str) -> str:
    """Return a name in lower case without signs and spaces, but with the dots of versions."""
    return re.sub(r"(?<!\d)\.|\.(?!\d)|[^a-z0-9.]", "", name.lower())


def _validate_entry(where: str, name: str, entry: Mapping[str, Any]) -> Engine:
    """Make an engine of the table that a user wrote."""
    types = {field.name: type(field.default) for field in attrs.fields(Engine)}
    keys = [key for key in types if key != "name"]
    for key, value in entry.items():
        if key not in keys:
            what = f"unknown key {key!r}{did_you_mean(key, keys)}"
            raise ParframeError("hardware", where, what, f"use one of {', '.join(keys)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        shown = repr(value)[:60]
        if types[key] in (int, float) and not (number and 0 <= value < float("inf")):
            what = f"{shown} is not a number of 0 or more"
            raise ParframeError("hardware", f"{where}.{key}", what, "set a number of 0 or more")
        if types[key] is bool and not isinstance(value, bool):
            what = f"{shown} is not a boolean"
            raise ParframeError("hardware", f"{where}.{key}", what, "set true or false")
    return _make_engine(name, {"aliases": [name], **entry})


def _make_engine(name: str, entry: Mapping[str, Any]) -> Engine:
    fields = dict(entry)
    for key in ("aliases", "fitted", "fitted_models", "fitted_devices"):
        fields[key] = tuple(fields.get(key, ()))
    return Engine(name, **fields)
