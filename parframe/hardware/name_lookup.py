"""The names of hardware: which words are in one, and which device or machine they mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import attrs

from parframe.errors import ParframeError, nearest
from parframe.hardware.device import Device
from parframe.hardware.machine import Machine

FORMS = frozenset({"sxm", "pcie", "nvl", "oam"})
"""The sockets and cards that tell GPUs of one chip apart."""

IDLE = frozenset(
    re.findall(
        r"\w+",
        "nvidia geforce tesla quadro amd instinct radeon gpu gpus accelerator card tensor core per "
        "one gcd generation server workstation edition hbm gddr ecc memory rtx gb x hopper ampere "
        "ada lovelace blackwell turing volta cdna dgx hgx node box single",
    )
)
"""Words of a name that tell nothing apart."""

_AMOUNT = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)[\s_-]*gi?b?(?!\w|/s)", re.IGNORECASE)
_COMMENT = re.compile(r"\([^()]*\)?|\s\+\s.*")
_WORD = re.compile(r"[a-z0-9]+")
_VERSION = re.compile(r"(sxm|oam|nvlink|hbm|gddr|cdna|pcie|gen)\d+[ex]?")
_MOST = 200


@attrs.frozen
class Words:
    """A name taken apart.

    Parameters
    ----------
    said
        Its words, in small letters, without the versions of sockets and memories.
    aside
        Words in parentheses or after a plus sign: they may tell machines apart, and need not be
        understood.
    amounts
        Amounts of memory in GB that it names, outside parentheses first.
    """

    said: tuple[str, ...]
    aside: tuple[str, ...]
    amounts: tuple[float, ...]


def words(name: str) -> Words:
    """Take a name apart.

    Examples
    --------
    >>> words("NVIDIA A100-SXM4-80GB (DGX)")
    Words(said=('nvidia', 'a100', 'sxm'), aside=('dgx',), amounts=(80.0,))
    """
    name = name[:_MOST].casefold().replace("_", " ")
    outside = _COMMENT.sub(" ", name)
    inside = " ".join(_COMMENT.findall(name))
    amounts = tuple(float(a) for a in _AMOUNT.findall(outside) + _AMOUNT.findall(inside))
    return Words(_words(outside), _words(inside), amounts)


def find_device(name: str, devices: Sequence[Device]) -> Device:
    """Find the device that a name means.

    Parameters
    ----------
    name
        A name in any usual spelling.
    devices
        The devices to choose from; of those that fit, the first is meant.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if none fits, with the nearest names.
    """
    for device in devices:
        if name.casefold() == device.key.casefold():
            return device
    asked = words(name)
    fitting = [d for d in devices if _parts(d) <= set(asked.said)]
    longest = max((len(_parts(d)) for d in fitting), default=0)
    chips = [d for d in fitting if len(_parts(d)) == longest]
    if not chips:
        raise _unknown(name, devices)
    forms = FORMS & set(asked.said)
    found = [d for d in chips if forms <= set(d.forms)]
    found = _of_amount(found, asked.amounts)
    if not found:
        raise _unknown(name, chips, f"there is no {chips[0].part.upper()} like it")
    return found[0]


def find_machine(name: str, machines: Sequence[Machine]) -> Machine:
    """Find the machine that a name means: a device's, in the box that the name says or the first.

    Parameters
    ----------
    name
        A name in any usual spelling, of a machine or of a device alone.
    machines
        The machines to choose from.

    Raises
    ------
    ParframeError
        Of kind `hardware`, if none fits, with the nearest names, or if the name has words that
        say nothing here.
    """
    asked = words(name)
    for machine in machines:
        if asked in (words(machine.key), words(machine.name)):
            return machine
    device = find_device(name, list(dict.fromkeys(m.device for m in machines)))
    boxes = [m for m in machines if m.device == device]
    heard = set(asked.said) | set(asked.aside)
    machine = max(boxes, key=lambda m: len(_box(m) & heard))
    _check_words(name, asked, machine, boxes)
    return machine


def _check_words(name: str, asked: Words, machine: Machine, boxes: Sequence[Machine]) -> None:
    """Refuse a name with a word that may say that something else is meant."""
    device = machine.device
    known = _parts(device) | set(device.forms) | IDLE | {device.architecture} | _box(machine)
    known |= set(words(device.name).said) | set(words(device.key).said) | {device.maker.casefold()}
    for word in asked.said:
        if word not in known:
            told = ", ".join(repr(box.name) for box in boxes)
            raise ParframeError(
                "hardware",
                repr(name[:_MOST]),
                f"{word!r} says nothing about {device.name}",
                f"give one of {told}, or describe what you have in a file",
            )


def _box(machine: Machine) -> set[str]:
    """The words that tell a machine from its device."""
    device = machine.device
    own = set(words(f"{machine.name} {machine.key} {machine.within.kind}").said)
    return own - set(words(device.name).said) - _parts(device) - IDLE


def _parts(device: Device) -> set[str]:
    return set(device.part.casefold().split())


def _of_amount(devices: list[Device], amounts: Sequence[float]) -> list[Device]:
    """Those with an amount of memory that a name says; all where it says none."""
    if not amounts:
        return devices
    sizes = {id(d): d.memory / 2**30 for d in devices}
    return [d for d in devices if any(abs(a - sizes[id(d)]) <= 0.04 * a for a in amounts)]


def _unknown(name: str, devices: Iterable[Device], what: str = "") -> ParframeError:
    names = [device.name for device in devices]
    shown = names if what else _nearest(name, names)
    told = f" (did you mean {shown[0]!r}?)" if shown and not what else ""
    one = f"give one of {', '.join(shown)}" if shown else "give a GPU's name"
    return ParframeError(
        "hardware",
        repr(name[:_MOST]),
        f"{what or 'no such GPU is known'}{told}",
        f"{one}, or describe it in a file; `parframe devices` lists all",
    )


def _nearest(name: str, names: list[str], most: int = 4) -> list[str]:
    """The names most like one, best first."""
    left = list(names)
    found: list[str] = []
    asked = " ".join(word for word in words(name).said if word not in IDLE - {"rtx"}) or name
    while left and len(found) < most:
        # H101 is nearer to H100 than to H100 SXM, and than H800 is
        called = {one.split()[0]: one for one in reversed(left) if not one.split()[0].isalpha()}
        called |= {one: one for one in left}
        one = nearest(asked, called)
        if one is None:
            break
        found.append(called[one])
        left.remove(called[one])
    return found


def _words(text: str) -> tuple[str, ...]:
    text = _AMOUNT.sub(" ", text)
    found = (_VERSION.sub(r"\1", word) for word in _WORD.findall(text))
    return tuple(dict.fromkeys(found))
