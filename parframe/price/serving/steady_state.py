"""What an engine serves: whole batches, requests in flight, and an offered load."""

from __future__ import annotations

import math

import attrs

from parframe.price.cost.estimate import Estimate, joined
from parframe.price.serving.device_memory import Room
from parframe.price.serving.engines import Engine
from parframe.price.serving.step_time import Clock, Load, step_time
from parframe.price.work.work import Work

UNSURE = 1e9
"""Bytes of a device by which what an engine keeps back may be other than thought."""

UNMEASURED_WAIT = 0.4
"""The further spread of a first token where requests follow each other, in an engine of which no
such rows were measured."""

FEWEST = 0.7
"""Sequences in flight where memory is said to hold not even one: engines do run, just so."""


@attrs.frozen
class Deployment:
    """A plan of a model on devices, under an engine.

    Parameters
    ----------
    work
        What a step of the plan asks of its devices.
    clock
        What that takes.
    engine
        What the engine adds.
    room
        What devices hold, and how many bytes the elements have.
    """

    work: Work
    clock: Clock
    engine: Engine
    room: Room

    def step(self, load: Load) -> Estimate:
        """Return the seconds of one step."""
        return step_time(self.work, self.clock, self.engine, load)

    def capacity(self, length: float, tokens: float) -> float:
        """Return how many sequences of a length memory holds, with steps of so many tokens."""
        return self.room.capacity(self.work, self.engine, length, tokens)

    def free(self) -> float:
        """Return the bytes that the fullest device has for its cache."""
        return min(self.room.free(stage, self.engine, 0.0) for stage in self.work.stages)


@attrs.frozen
class Batch:
    """A batch of requests that are given at once.

    Parameters
    ----------
    first
        Seconds until all prompts are read.
    token
        Seconds of a later token.
    whole
        Seconds until all requests are done.
    waves
        How many parts it is served in, because memory does not hold it at once.
    """

    first: Estimate
    token: Estimate
    whole: Estimate
    waves: int = 1


@attrs.frozen
class Served:
    """A steady state.

    Parameters
    ----------
    rows
        Sequences in flight.
    token
        Seconds between tokens of a sequence.
    first
        Seconds from a request to its first token; None where nothing is known of that.
    rate
        Requests a second, over the whole deployment.
    why
        What decided.
    offered
        Whether the rate is what is offered, which the engine keeps up with.
    """

    rows: float
    token: Estimate
    first: Estimate | None
    rate: Estimate
    why: tuple[str, ...] = ()
    offered: bool = False


def static_batch(deployment: Deployment, rows: float, prompt: float, output: float) -> Batch:
    """Return what a batch takes that is given at once.

    What memory cannot hold together is served in waves: it is divided into as few equal parts as
    fit.
    """
    held = deployment.capacity(prompt + output, min(rows * prompt, deployment.engine.tokens))
    waves = max(1, math.ceil(rows / max(held, 1.0) - 1e-6))
    part = rows / waves
    first = _read_prompts(deployment, part, prompt)
    token = deployment.step(Load(part, prompt + output / 2))
    whole = (first + token * max(output - 1, 0)) * waves
    if waves > 1:
        whole = whole.widened(0.0, f"memory holds {held:.0f} of {rows:.0f} at once")
    return Batch(first, token, whole, waves)


def _read_prompts(deployment: Deployment, rows: float, prompt: float) -> Estimate:
    """Seconds of reading the prompts of a batch, as many in a step as the engine takes."""
    each = max(deployment.engine.tokens // max(prompt, 1), 1)
    at_once = min(rows, each * deployment.work.replicas)
    return deployment.step(Load(prompts=at_once, prompt=prompt)) * (rows / at_once)


def mixture(
    deployment: Deployment, rows: float, prompt: float, output: float
) -> tuple[tuple[float, Load], ...]:
    """Return what steps carry while ``rows`` sequences are in flight, each with its share of them.

    Each leaves after ``output`` steps and a new one takes its place, so that ``rows * prompt /
    output`` tokens of prompts come with a step on average (Yu et al., Orca, 2022). They come in
    whole prompts, or as many as fill a step, in some of the steps; the others only decode.
    """
    context = prompt + output / 2
    engine = deployment.engine
    arriving = rows * prompt / max(output, 1)
    replicas = deployment.work.replicas
    piece = max(engine.tokens * replicas - rows, prompt * replicas, 1.0)
    share = min(arriving / piece, 1.0)
    mixed = Load(rows, context, max(piece, arriving) / prompt, prompt)
    plain = ((1 - share, Load(rows, context)),) if share < 1.0 else ()
    return ((share, mixed), *plain)


def iteration(deployment: Deployment, rows: float, prompt: float, output: float) -> Estimate:
    """Return the mean seconds of a step in which ``rows`` sequences are in flight."""
    (share, load), *others = mixture(deployment, rows, prompt, output)
    mixed = deployment.step(load)
    if not others:
        return mixed
    plain = deployment.step(others[0][1])
    value = share * mixed.value + (1 - share) * plain.value
    return Estimate(value, max(mixed.log_std, plain.log_std), joined(plain.notes, mixed.notes))


def most_rows(
    deployment: Deployment, prompt: float, output: float, requests: float | None = None
) -> tuple[float, str]:
    """Return how many sequences can be in flight, and what limits them."""
    engine = deployment.engine
    length = prompt + output
    tokens = _tokens(deployment, prompt, output)
    step = max(float(engine.tokens), prompt)
    limits = {
        "memory": deployment.capacity(length, tokens),
        # Each step reads prompts for those that leave: as many decode as leave room for them.
        "tokens of a step": step * output / length * max(1, deployment.work.replicas),
        "the engine's most sequences": float(engine.rows) * max(1, deployment.work.replicas),
    }
    if requests:
        limits["requests"] = float(requests)
    name = min(limits, key=lambda one: limits[one])
    return max(limits[name], FEWEST), name


def _tokens(deployment: Deployment, prompt: float, output: float) -> float:
    """The tokens that activations of a step are allocated for."""
    return min(deployment.engine.tokens, max(2048.0, prompt))


def saturated(
    deployment: Deployment, prompt: float, output: float, requests: float | None = None
) -> Served:
    """Return what is served when there are always more requests waiting than can be in flight."""
    rows, limit = most_rows(deployment, prompt, output, requests)
    token = iteration(deployment, rows, prompt, output)
    rate = _inverse(token, rows / output)
    if limit == "memory":
        unsure = UNSURE / max(deployment.free(), UNSURE)
        rate = rate.widened(unsure, *(("memory leaves little to the cache",) * (unsure > 0.1)))
    first = None
    if requests:
        # The last of those that are there at once has its first token when all prompts of those
        # before it are read; where they do not fit at once, when their places are free.
        reading = _read_prompts(deployment, min(rows, requests), prompt)
        waiting = max(requests - rows, 0) / 2 / rate.value
        first = Estimate(reading.value / 2 + waiting, reading.log_std, reading.notes)
    return Served(rows, token, first, rate, (f"{rows:.0f} sequences in flight: {limit}",))


def closed_loop(deployment: Deployment, concurrency: float, prompt: float, output: float) -> Served:
    """Return what is served to so many clients, each of which asks anew when it has its answer."""
    engine = deployment.engine
    if engine.batches:
        return _in_batches(deployment, concurrency, prompt, output)
    rows, limit = most_rows(deployment, prompt, output, concurrency)
    token = iteration(deployment, rows, prompt, output)
    lasting = token.value * output
    own = deployment.step(Load(max(rows - 1, 0), prompt + output / 2, 1, prompt))
    others = max(rows - 1, 0) / rows
    waiting = engine.turns * others * lasting / rows
    together = rows / deployment.work.replicas
    waiting += engine.burst * together * _read_prompts(deployment, 1, prompt).value
    waiting += max(concurrency - rows, 0) * lasting / rows
    first = Estimate(own.value + waiting + engine.request, own.log_std, own.notes)
    if "turns" not in engine.fitted:
        first = first.widened(UNMEASURED_WAIT, "no rows tell how long requests wait for a place")
    rate = Estimate(
        concurrency / (first.value + token.value * max(output - 1, 0)), token.log_std, token.notes
    )
    why = () if limit == "requests" else (f"{rows:.0f} sequences in flight: {limit}",)
    return Served(rows, token, first, rate, why)


def _in_batches(deployment: Deployment, concurrency: float, prompt: float, output: float) -> Served:
    """The same by an engine that begins a batch when the one before it is done."""
    rows, limit = most_rows(deployment, prompt, output, concurrency)
    spread = deployment.engine.spread
    batch = static_batch(deployment, rows, prompt, output)
    waiting = max(concurrency / rows - 1, 0) * batch.whole.value
    first = attrs.evolve(batch.first, value=batch.first.value + deployment.engine.request + waiting)
    token = batch.token.widened(spread.get("token", 0.0))
    why = () if limit == "requests" else (f"{rows:.0f} sequences in a batch: {limit}",)
    whole = first.value - waiting + token.value * max(output - 1, 0)
    rate = Estimate(rows / whole, token.log_std, token.notes)
    return Served(rows, token, first.widened(spread.get("first", 0.0)), rate, why)


def open_loop(
    deployment: Deployment,
    offered: float,
    prompt: float,
    output: float,
    requests: float | None = None,
) -> Served:
    """Return what is served when requests come by themselves, ``offered`` a second.

    In flight are, by Little's law, as many as come while one lasts. Where that is more than can be,
    the load is more than is served: the queue grows as long as requests come.
    """
    full = saturated(deployment, prompt, output, requests)
    if offered >= full.rate.value:
        return _overloaded(full, offered, requests)
    rows = _little(deployment, offered, prompt, output, full.rows)
    token = iteration(deployment, rows, prompt, output)
    own = deployment.step(Load(rows, prompt + output / 2, 1, prompt))
    use = offered / full.rate.value
    # A prompt waits for the step under way, and for prompts before it: a queue with one server
    # (Pollaczek and Khinchine, service of constant length).
    alone = deployment.step(Load(prompts=1, prompt=prompt)).value
    busy = min(offered * alone, 0.95)
    waiting = token.value / 2 + busy / (2 * (1 - busy)) * alone
    first = Estimate(own.value + waiting + deployment.engine.request, own.log_std, own.notes)
    rate = offered
    if requests:
        # A run of so many requests lasts until the last of them is answered.
        lasting = first.value + token.value * output
        rate = requests / (requests / offered + lasting)
    why = (f"{use:.0%} of what can be served",)
    return Served(rows, token, first, Estimate(rate, 0.02 + 0.1 * use), why, offered=True)


def _overloaded(full: Served, offered: float, requests: float | None) -> Served:
    why = (*full.why, f"more is asked ({offered:.3g} a second) than can be served")
    if requests is None or full.first is None:
        return attrs.evolve(full, first=None, why=why)
    growing = requests / 2 * (1 / full.rate.value - 1 / offered) if offered < math.inf else 0.0
    first = full.first
    if offered < math.inf:
        first = Estimate(max(growing, full.token.value), 0.5, full.first.notes)
    return attrs.evolve(full, first=first, why=why)


def _little(
    deployment: Deployment, offered: float, prompt: float, output: float, most: float
) -> float:
    """Sequences in flight at which as many leave as come, between points an octave apart."""
    points = [2.0**power for power in range(math.ceil(math.log2(max(most, 2.0))))] + [most]
    below, before = points[0], 0.0
    for rows in points:
        leaving = rows / (output * iteration(deployment, rows, prompt, output).value)
        if leaving >= offered:
            if rows == points[0]:
                return rows * offered / leaving
            part = math.log(offered / before) / math.log(leaving / before)
            return float(below * (rows / below) ** part)
        below, before = rows, leaving
    return most


def _inverse(time: Estimate, amount: float) -> Estimate:
    """Return an amount a second: the error of a quotient is that of its time."""
    return Estimate(amount / time.value, time.log_std, time.notes)
