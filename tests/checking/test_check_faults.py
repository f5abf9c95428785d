"""The checker finds every fault that is planted in a correct plan."""

from __future__ import annotations

import pytest
from faults import COMMUNICATION_FAULTS, FAULTS, plant_faults
from tiny_plans import plans

from parframe.checking import check

pytestmark = pytest.mark.slow

PLANTS = 20


def test_there_are_kinds_enough():
    assert len(FAULTS) >= 24
    assert len(COMMUNICATION_FAULTS) >= 12


@pytest.mark.parametrize("kind", FAULTS)
def test_every_planted_fault_is_found(kind):
    planted = list(plant_faults(kind, plans(), PLANTS, seed=0))
    assert len(planted) == PLANTS
    missed = [what for what, plan in planted if check(plan).ok]
    assert not missed
