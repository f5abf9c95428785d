"""Print how many rules were proved by execution, and what operators may claim and do not.

Every sample that PyTorch has of its operators is tried (``--per-operator`` takes fewer). What is
not claimed is found by trial: every choice of at most one axis a tensor, of one size, that an
operator turns out to pass, though no letter of its rule says so. Operators without a rule are
listed, not tried: some of PyTorch's kernels crash on arguments that do not fit.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from rules.calls import Call, execute, sampled
from rules.oracle import False_, Tally, Try, attempt, compare, splittable, steady

from parframe.rules.signature import spell
from parframe.rules.table import RULES

_MOST = 64
"""Largest number of choices of axes that are tried for a call."""

Choice = tuple[int | None, ...]
"""An axis of each input and output, or None."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-operator", type=int, default=None, help="samples of each operator")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    order = random.Random(options.seed)
    tally, unclaimed = Tally(), Unclaimed()
    begun = time.perf_counter()
    for call in sampled(options.seed, options.per_operator):
        tally.prove(call, order)
        unclaimed.search(call, order)
    report(tally, unclaimed, time.perf_counter() - begun)


def report(tally: Tally, unclaimed: Unclaimed, seconds: float) -> None:
    print(f"rules in the table            {len(RULES)}")
    print(f"operators verified             {len(tally.covered)}")
    print(f"calls verified                 {sum(tally.covered.values())}")
    print(f"verifications                {tally.proofs}")
    print(f"false rules                   {len(tally.wrong)}")
    print(f"calls a rule does not cover   {sum(tally.refused.values())}")
    print(f"operators without a rule      {len(tally.ruleless)}")
    print(f"choices of dims tried         {unclaimed.tried}")
    print(f"  true and claimed            {unclaimed.claimed}")
    print(f"  true and not claimed        {sum(unclaimed.found.values())}")
    print(f"seconds                       {seconds:.0f}")
    for title, counter in (
        ("true and not claimed", unclaimed.found),
        ("not covered", tally.refused),
        ("without a rule", tally.ruleless),
    ):
        print(f"\n{title}:")
        for target, count in counter.most_common():
            print(f"  {count:6} {target}")
    for wrong in tally.wrong:
        print(f"\nFALSE {wrong}")


class Unclaimed:
    """Looks for splits that hold and that no rule claims."""

    def __init__(self) -> None:
        self.tried = 0
        self.claimed = 0
        self.found: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()

    def search(self, call: Call, order: random.Random) -> None:
        """Try choices of axes of one call."""
        if self.seen[call.target] >= 4 or call.target not in RULES or not steady(call):
            return
        self.seen[call.target] += 1
        tried = attempt(call, RULES[call.target])
        known = claims(tried) if tried is not None else []
        options = list(choices(call))
        for choice in order.sample(options, min(len(options), _MOST)):
            self.tried += 1
            if not holds(call, choice, order):
                continue
            if choice in known:
                self.claimed += 1
            else:
                self.found[call.target] += 1


def choices(call: Call) -> Iterator[Choice]:
    """At most one axis of each tensor, at least one of an input, all of one size."""
    tensors = (*call.inputs.values(), *call.outputs.values())
    if len(tensors) > 5:
        return
    sizes = {size for tensor in call.inputs.values() for size in tensor.shape if size > 1}
    for size in sorted(sizes):
        axes = [[None, *(i for i, n in enumerate(tensor.shape) if n == size)] for tensor in tensors]
        for choice in itertools.islice(itertools.product(*axes), 512):
            if any(axis is not None for axis in choice[: len(call.inputs)]):
                yield choice


def claims(tried: Try) -> list[Choice]:
    """Return the choices of dims that the labels of a rule make."""
    patterns = (*tried.signature.inputs, *tried.signature.outputs)
    found: list[Choice] = []
    for letter in splittable(tried):
        where = [[i for i, axis in enumerate(own) if letter in spell(axis)] for own in patterns]
        if all(len(places) <= 1 for places in where):
            found.append(tuple(places[0] if places else None for places in where))
    return found


def holds(call: Call, choice: Choice, order: random.Random) -> bool:
    """Return whether two parts, computed like the whole, make up the whole; tried twice."""
    return all(_holds(call, choice, order.random()) for _ in range(2))


def _holds(call: Call, choice: Choice, at: float) -> bool:
    taken, given = choice[: len(call.inputs)], choice[len(call.inputs) :]
    first = next(
        tensor.shape[axis]
        for tensor, axis in zip(call.inputs.values(), taken, strict=True)
        if axis is not None
    )
    middle = 1 + int(at * (first - 1))
    results = []
    for low, high in ((0, middle), (middle, first)):
        part = {
            name: tensor if axis is None else tensor.narrow(axis, low, high - low)
            for (name, tensor), axis in zip(call.inputs.items(), taken, strict=True)
        }
        try:
            result = execute(call.target, call.site.operator.args, part)
        except Exception:  # noqa: BLE001  # a wrong choice fails in any way
            return False
        results.append([result] if isinstance(result, torch.Tensor) else list(result))
    return all(
        _joins(one, two, whole, axis)
        for one, two, whole, axis in zip(*results, call.outputs.values(), given, strict=True)
    )


def _joins(one: torch.Tensor, two: torch.Tensor, whole: torch.Tensor, axis: int | None) -> bool:
    if axis is not None:
        others = [list(tensor.shape) for tensor in (one, two, whole)]
        if any(len(other) != whole.dim() for other in others):
            return False
        for other in others:
            other[axis] = 0
        if others[0] != others[2] or others[1] != others[2]:
            return False
        return _equal(torch.cat([one, two], axis), whole)
    if one.shape != whole.shape or two.shape != whole.shape or not whole.numel():
        return False
    alike = _equal(one, whole) and _equal(two, whole)
    return alike or _equal(one + two, whole) or (
        not whole.is_complex() and (_equal(torch.maximum(one, two), whole)
                                    or _equal(torch.minimum(one, two), whole))
    )  # fmt: skip


def _equal(found: torch.Tensor, whole: torch.Tensor) -> bool:
    try:
        compare(found, whole, "")
    except False_:
        return False
    return True


if __name__ == "__main__":
    main()
