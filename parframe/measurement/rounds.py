"""A machine measured as a whole, any number of times, and what the times come to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from parframe.hardware import Machine
from parframe.measurement.engine_overhead import Pair, Run, Runs, runs, with_engine
from parframe.measurement.machine import Asked, Heard, machine_of, measured
from parframe.measurement.samples import Part, merged


@attrs.frozen
class Observed:
    """What was seen in one round: what ranks told, and the runs of small models."""

    heard: Heard
    runs: Runs


def observe(asked: Asked, told: Callable[[str], None]) -> Observed:
    """Measure all once.

    Parameters
    ----------
    asked
        What is measured.
    told
        Is told of what begins.

    Raises
    ------
    ParframeError
        If something cannot be run here.
    """
    told(f"kernels and exchanges of {asked.ranks} ranks")
    return Observed(measured(asked), runs(asked, told))


def machine(asked: Asked, rounds: Sequence[Observed], part: Part) -> Machine:
    """Make a machine of what was seen in some rounds.

    Parameters
    ----------
    asked
        What was measured.
    rounds
        One or more.
    part
        Which of several times counts.
    """
    heard = Heard({}, {}, max(one.heard.resident for one in rounds))
    for one in rounds:
        for key, by_rank in one.heard.points.items():
            for rank, found in by_rank.items():
                heard.points.setdefault(key, {}).setdefault(rank, []).extend(found)
        for kind, times in one.heard.exchanges.items():
            heard.exchanges.setdefault(kind, []).extend(times)
    found_runs = _merged([one.runs for one in rounds])
    return with_engine(machine_of(asked, heard, part), found_runs, heard.resident, part)


def _merged(several: Sequence[Runs]) -> Runs:
    staged = [one.stages for one in several if one.stages is not None]
    return Runs(
        _of_pair([one.tensor for one in several]),
        _of_pair(staged) if staged else None,
        tuple(_of_run(each) for each in zip(*(one.checked for one in several), strict=True)),
    )


def _of_pair(several: Sequence[Pair]) -> Pair:
    return _of_run([shallow for shallow, _ in several]), _of_run([deep for _, deep in several])


def _of_run(several: Sequence[Run]) -> Run:
    return attrs.evolve(
        several[0],
        token=merged([one.token for one in several]),
        first=merged([one.first for one in several]),
    )
