"""Serving engines as data: what one adds to kernels' times, how it fills batches and memory."""

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

POOLED = "pooled"
"""The entry for an engine that has none of its own."""


@attrs.frozen
class Engine:
    """The few constants of a serving engine.

    Parameters
    ----------
    name
        Its name in tables.
    names
        Spellings that choose it: it is in a framework's name as written in a table, and the
        longest one counts. One that begins with ``=`` must be the whole name.
    products, attention, exchanges
        How many times as long kernels take as their own measurements say.
    regrouping
        How much of the cache a decode step reads again for every further query head that shares it,
        because kernels take each query head by itself.
    experts
        How many times as long as other products, against the same, those of experts take.
    step
        Seconds that a step takes beside its kernels.
    layer
        The same, for each layer of the model.
    row
        The same, for each sequence of the step: sampling, text, streaming.
    launch
        Seconds that the host needs to launch a layer's kernels; devices wait where they are
        faster than it. Zero where a step is one graph.
    overlap
        How far pipeline stages work at once: 1 fully, 0 one after the other.
    tokens
        Most new tokens of one step, prompts and single ones together.
    rows
        Most sequences in flight.
    windows
        Whether it makes use of sliding windows: keeps and reads no more positions than they have.
    reserve
        Bytes of a device that neither weights, activations nor cache can have.
    share
        The part of what is then left that the cache may have.
    of_all
        Whether that share is of all memory instead, from which the rest is then taken.
    request
        Seconds of a request outside all steps: network, text to tokens.
    reading
        Seconds more, for each layer, of a step that reads prompts and whose kernels are launched
        one by one.
    stage
        Seconds of each further stage that a token passes: the host's work there, and the way back
        of the token.
    batches
        Whether requests are served in batches, each to its end before the next one begins.
    all_logits
        Whether the head gives logits of every position of a prompt, of which the last is used.
    turns
        How many departures of others a request waits for before it starts, where as many are in
        flight as may be.
    burst
        Prompts of others that a request waits for as a share of those in flight, because clients
        begin together.
    fitted
        The constants that are fitted to rows; the others are as the engine is known to work.
    spread
        Standard deviation of the logarithm of what was measured over what is predicted, out of
        sample, by kind of figure (``rate``, ``token``, ``first``, ``whole``).
    doubt
        What kernels and exchanges leave open by themselves in those rows: only more than that
        widens an interval further.
    models, devices
        The models and devices whose rows it was fitted to.
    other_model, other_device
        The further spread with any other.
    source
        The tables that it was fitted to, each with how many rows.
    """

    name: str
    names: tuple[str, ...] = ()
    products: float = 1.0
    experts: float = 1.0
    attention: float = 1.0
    exchanges: float = 1.0
    regrouping: float = 0.0
    step: float = 1e-3
    layer: float = 0.0
    row: float = 0.0
    launch: float = 0.0
    overlap: float = 1.0
    tokens: int = 8192
    rows: int = 4096
    windows: bool = True
    reserve: float = 2e9
    share: float = 0.9
    of_all: bool = False
    request: float = 0.0
    turns: float = 0.0
    burst: float = 0.0
    reading: float = 0.0
    stage: float = 0.0
    batches: bool = False
    all_logits: bool = False
    spread: Mapping[str, float] = attrs.field(factory=dict, hash=False)
    fitted: tuple[str, ...] = ()
    doubt: float = 0.0
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    other_model: float = 0.0
    other_device: float = 0.0
    source: Mapping[str, int] = attrs.field(factory=dict, hash=False)

    def with_constants(self, constants: Mapping[str, float]) -> Engine:
        """Return this engine with other numbers for the constants that are named."""
        fields: dict[str, Any] = dict(constants)
        return attrs.evolve(self, **fields)

    @property
    def known(self) -> bool:
        """Whether rows of this very engine stand behind it."""
        return self.name != POOLED


@cache
def engines() -> tuple[Engine, ...]:
    """Return the engines that ship, the pooled one last."""
    text = resources.files("parframe.price").joinpath("data", "engines.toml").read_text("utf-8")
    return read(text)


def read(text: str) -> tuple[Engine, ...]:
    """Return the engines of a TOML text."""
    entries = tomllib.loads(text)["engine"]
    return tuple(_engine(name, entry) for name, entry in entries.items())


def engines_of(machine: Machine) -> tuple[Engine, ...]:
    """Return the engines that were measured on a machine.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if what its file says of them is illegal.
    """
    return tuple(
        _checked(f"{machine.name}: engine.{name}", name, entry)
        for name, entry in machine.engines.items()
    )


def engine_on(machine: Machine, framework: str = "") -> Engine:
    """Return an engine by its name: as measured on the machine, else as it ships.

    Without a name it is the first that was measured there, or the pooled one.
    """
    own = engines_of(machine)
    if own and not framework:
        return own[0]
    return engine(framework, (*engines(), *own))


def engine(framework: str | None, among: tuple[Engine, ...] | None = None) -> Engine:
    """Return the engine that a framework's name, as tables spell it, stands for.

    Parameters
    ----------
    framework
        As ``TensorRT-LLM 0.17`` or ``vLLM``; None or an unknown one gives the pooled engine,
        whose name says so.
    among
        Instead of those that ship.
    """
    known = engines() if among is None else among
    spelled = plain(framework or "")
    best: tuple[int, Engine] | None = None
    for candidate in known:
        for name in candidate.names:
            whole, wanted = name.startswith("="), plain(name)
            if not wanted or (spelled != wanted if whole else wanted not in spelled):
                continue
            length = len(wanted) + (1000 if whole else 0)
            if best is None or length > best[0]:
                best = (length, candidate)
    return best[1] if best else named(POOLED, known)


def named(name: str, among: tuple[Engine, ...] | None = None) -> Engine:
    """Return the engine of exactly this name.

    Raises
    ------
    ParframeError
        Of kind `choice`, if there is none.
    """
    known = engines() if among is None else among
    for candidate in known:
        if candidate.name == name:
            return candidate
    raise ParframeError(
        "hardware",
        f"engine {name!r}",
        "no constants of such an engine are here",
        did_you_mean(name, [one.name for one in known]),
    )


def plain(name: str) -> str:
    """Return a name without case, marks and spaces, but with the dots of versions."""
    return re.sub(r"(?<!\d)\.|\.(?!\d)|[^a-z0-9.]", "", name.lower())


def _checked(where: str, name: str, entry: Mapping[str, Any]) -> Engine:
    """Make an engine of what a user wrote."""
    kinds = {field.name: type(field.default) for field in attrs.fields(Engine)}
    known = [key for key in kinds if key != "name"]
    for key, value in entry.items():
        if key not in known:
            what = f"has no key {key!r}{did_you_mean(key, known)}"
            raise ParframeError("hardware", where, what, f"give {', '.join(known)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kinds[key] in (int, float) and not (number and 0 <= value < float("inf")):
            shown = repr(value)[:60]
            raise ParframeError("hardware", f"{where}.{key}", f"is {shown}", "give a number from 0")
        if kinds[key] is bool and not isinstance(value, bool):
            shown = repr(value)[:60]
            raise ParframeError("hardware", f"{where}.{key}", f"is {shown}", "give true or false")
    return _engine(name, {"names": [name], **entry})


def _engine(name: str, entry: Mapping[str, Any]) -> Engine:
    fields = dict(entry)
    for name_of in ("names", "fitted", "models", "devices"):
        fields[name_of] = tuple(fields.get(name_of, ()))
    return Engine(name, **fields)
