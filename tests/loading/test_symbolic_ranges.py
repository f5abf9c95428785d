"""Tensors of ranges over sizes: their values, restored files, and refused uses."""

import sys

import pytest
import torch
from torch import nn

import parframe
from parframe.errors import ParframeError
from parframe.simulation.reference import run_graph
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow


class Backward(nn.Module):
    """Counts positions from the end, and tests types of lists and ranges."""

    def forward(self, x):
        numbers = list(range(x.shape[1]))[::-1]
        known = isinstance(numbers, list | tuple) and not isinstance(numbers, range)
        return x * torch.tensor(numbers, device=x.device) if known else x


class Odd(nn.Module):
    def forward(self, x):
        return x * torch.tensor(range(1, 2 * x.shape[1], 2), dtype=torch.float64)


class Ordinary(nn.Module):
    """Has other ranges and lists in addition to a range over a size."""

    def forward(self, x):
        more = [torch.tensor(list(range(3))).sum() for _ in range(2)]
        return x + torch.tensor(list(range(x.shape[1]))) + sum(list(more))


def loaded(module):
    axes = {"x": {0: "batch", 1: "sequence"}}
    return parframe.load(module, inputs={"x": torch.zeros(3, 7).double()}, dynamic=axes)


@pytest.mark.parametrize("kind", [Backward, Odd, Ordinary])
def test_a_range_over_a_size_has_the_length_of_the_size(kind):
    graph = loaded(kind())
    for sizes in ((1, 1), (2, 5), (4, 30)):
        x = torch.randn(*sizes).double()
        (found,) = torch.utils._pytree.tree_leaves(
            run_graph(graph, {"x": x}, read_state_dict(graph, kind()))
        )
        assert found.dtype == x.dtype
        assert torch.equal(found, kind()(x))


def test_plans_of_ranges_over_a_size_are_verified():
    plan = parframe.partition(loaded(Backward()), "DP2")
    assert parframe.check(plan).ok
    assert parframe.verify(plan).ok


def test_the_file_of_a_model_is_left_as_it_was():
    before = dict(vars(sys.modules[__name__]))
    loaded(Odd())
    with pytest.raises(ParframeError):
        loaded(Loop())
    assert vars(sys.modules[__name__]) == before


class Loop(nn.Module):
    def forward(self, x):
        return torch.stack([x[:, i].exp() for i in range(x.shape[1])])


class Length(nn.Module):
    def forward(self, x):
        return x * len(list(range(x.shape[1])))


class Part(nn.Module):
    def forward(self, x):
        return x * torch.tensor(list(range(x.shape[1]))[1:]).sum()


class Compared(nn.Module):
    def forward(self, x):
        return x * 2 if list(range(x.shape[1])) == [0, 1] else x


class Stepped(nn.Module):
    def forward(self, x):
        return x * torch.tensor(range(0, 9, x.shape[1])).sum()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Loop, "used for other than a tensor"),
        (Length, "used for other than a tensor"),
        (Part, "used for other than a tensor"),
        (Compared, "used for other than a tensor"),
        (Stepped, "the step of a range is a size"),
    ],
)
def test_other_uses_of_a_range_over_a_size_are_refused(kind, why):
    with pytest.raises(ParframeError, match=why) as caught:
        loaded(kind())
    assert caught.value.where.startswith("test_symbolic_ranges.py:")
