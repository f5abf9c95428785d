"""Lookup of devices and machines by names in any usual spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from parframe.errors import ParframeError, nearest
from parframe.hardware.device import Device
from parframe.hardware.machine import Machine

FORMS = frozenset({"sxm", "pcie", "nvl", "oam"})
"""Sockets and cards that distinguish GPUs of one chip."""

IGNORED_WORDS = frozenset(
    re.findall(
        r"\w+",
        "nvidia geforce tesla quadro amd instinct radeon gpu gpus accelerator card tensor core per "
        "one gcd generation server workstation edition hbm gddr ecc memory rtx gb x hopper ampere "
        "ada lovelace blackwell turing volta cdna dgx hgx node box single",
    )
)
"""Words of a name that distinguish nothing."""

_AMOUNT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[\s_-]*gi?b?(?!\w|/s)", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)?|\s\+\s.*")
_WORD = re.compile(r"[a-z0-9]+")
_VERSION = re.compile(r"(sxm|oam|nvlink|hbm|gddr|cdna|pcie|gen)\d+[ex]?")
_MAX_LENGTH = 200


@attrs.frozen
class NameWords:
    """Words of a name."""

    words: tuple[str, ...]  # in lower case, without the versions of sockets and memories
    parenthesized: tuple[str, ...]  # or after a plus sign; unknown ones are ignored
    memory_gb: tuple[float, ...]  # those outside parentheses first


def split_name(name: str) -> NameWords:
    """Split a name into words.

    Examples
    --------
    >>> split_name("NVIDIA A100-SXM4-80GB (DGX)")
    NameWords(words=('nvidia', 'a100', 'sxm'), parenthesized=('dgx',), memory_gb=(80.0,))
    """
    name = name[:_MAX_LENGTH].casefold().replace("_", " ")
    outside = _COMMENT.sub(" ", name)
    inside = " ".join(_COMMENT.findall(name))
    amounts = tuple(float(a) for a in _AMOUNT.findall(outside) + _AMOUNT.findall(inside))
    return NameWords(_split_words(outside), _split_words(inside), amounts)


def find_device(name: str, devices: Sequence[Device]) -> Device:
    """Find the first device that a name in any usual spelling matches.

    Raises
    ------
    ParframeError
        Of kind `hardware`, with the nearest names, if none matches.
    """
    for device in devices:
        if name.casefold() == device.key.casefold():
            return device
    query = split_name(name)
    matches = [d for d in devices if _part_words(d) <= set(query.words)]
    longest = max((len(_part_words(d)) for d in matches), default=0)
    chips = [d for d in matches if len(_part_words(d)) == longest]
    if not chips:
        raise _unknown(name, devices)
    forms = FORMS & set(query.words)
    found = [d for d in chips if forms <= set(d.forms)]
    found = _with_memory(found, query.memory_gb)
    if not found:
        raise _unknown(name, chips, f"no such {chips[0].part.upper()} is known")
    return found[0]


def find_machine(name: str, machines: Sequence[Machine]) -> Machine:
    """Find a machine by its name in any usual spelling, or the first one that has a named device.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if none matches, or if the name has unknown words.
    """
    query = split_name(name)
    for machine in machines:
        if query in (split_name(machine.key), split_name(machine.name)):
            return machine
    device = find_device(name, list(dict.fromkeys(m.device for m in machines)))
    candidates = [m for m in machines if m.device == device]
    given = set(query.words) | set(query.parenthesized)
    machine = max(candidates, key=lambda m: len(_machine_words(m) & given))
    _check_words(name, query, machine, candidates)
    return machine


def _check_words(
    name: str, query: NameWords, machine: Machine, candidates: Sequence[Machine]
) -> None:
    """Refuse a name with an unknown word: it may mean other hardware."""
    device = machine.device
    known = _part_words(device) | set(device.forms) | IGNORED_WORDS | {device.architecture}
    known |= _machine_words(machine) | {device.maker.casefold()}
    known |= set(split_name(device.name).words) | set(split_name(device.key).words)
    for word in query.words:
        if word not in known:
            names = ", ".join(repr(candidate.name) for candidate in candidates)
            raise ParframeError(
                "hardware",
                repr(name[:_MAX_LENGTH]),
                f"the word {word!r} does not match {device.name}",
                f"use one of {names}, or describe the hardware in a file",
            )


def _machine_words(machine: Machine) -> set[str]:
    """Return the words that distinguish a machine from its device."""
    device = machine.device
    words = set(split_name(f"{machine.name} {machine.key} {machine.within.kind}").words)
    return words - set(split_name(device.name).words) - _part_words(device) - IGNORED_WORDS


def _part_words(device: Device) -> set[str]:
    return set(device.part.casefold().split())


def _with_memory(devices: list[Device], amounts: Sequence[float]) -> list[Device]:
    """Return the devices with one of these amounts of memory in GB, or all if none is given."""
    if not amounts:
        return devices
    sizes = {id(d): d.memory / 2**30 for d in devices}
    return [d for d in devices if any(abs(a - sizes[id(d)]) <= 0.04 * a for a in amounts)]


def _unknown(name: str, devices: Iterable[Device], what: str = "") -> ParframeError:
    names = [device.name for device in devices]
    shown = names if what else _nearest(name, names)
    suggestion = f" (did you mean {shown[0]!r}?)" if shown and not what else ""
    hint = f"use one of {', '.join(shown)}" if shown else "give a GPU's name"
    return ParframeError(
        "hardware",
        repr(name[:_MAX_LENGTH]),
        f"{what or 'no such GPU is known'}{suggestion}",
        f"{hint}, or describe it in a file; `parframe devices` lists all",
    )


def _nearest(name: str, names: list[str], most: int = 4) -> list[str]:
    """Return the names most like a name, best first."""
    remaining = list(names)
    found: list[str] = []
    query = (
        " ".join(word for word in split_name(name).words if word not in IGNORED_WORDS - {"rtx"})
        or name
    )
    while remaining and len(found) < most:
        # H101 is nearer to H100 than to H100 SXM, and than H800 is
        spellings = {n.split()[0]: n for n in reversed(remaining) if not n.split()[0].isalpha()}
        spellings |= {n: n for n in remaining}
        best = nearest(query, spellings)
        if best is None:
            break
        found.append(spellings[best])
        remaining.remove(spellings[best])
    return found


def _split_words(text: str) -> tuple[str, ...]:
    text = _AMOUNT.sub(" ", text)
    found = (_VERSION.sub(r"\1", word) for word in _WORD.findall(text))
    return tuple(dict.fromkeys(found))
