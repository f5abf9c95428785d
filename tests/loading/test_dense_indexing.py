"""Rows selected by a mask: exported exactly, as all rows and the mask, or refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import parframe
from parframe.errors import ParframeError
from parframe.simulation.reference import run_graph
from parframe.weights import read_state_dict

pytestmark = pytest.mark.slow

EXPERTS = 3


class Routed(nn.Module):
    """Experts in a loop over those that have tokens."""

    def __init__(self, walk="tensor"):
        super().__init__()
        self.router = nn.Linear(4, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, 6, 4))
        self.down = nn.Parameter(torch.randn(EXPERTS, 4, 6))
        self.walk = walk

    def forward(self, x):
        x = x.view(-1, 4)
        weights, ids = self.router(x).softmax(-1).topk(2, dim=-1)
        mask = functional.one_hot(ids, EXPERTS + 1).permute(2, 1, 0)
        result = torch.zeros_like(x)
        for number in torch.greater(mask.sum((-1, -2)), 0).nonzero():
            number = number[0] if self.walk == "tensor" else number.item()
            if self.walk == "item" and number >= EXPERTS:
                continue
            choice, token = torch.where(mask[number])
            if token.numel() == 0:
                continue
            inner = functional.silu(functional.linear(x[token], self.up[number]))
            outer = functional.linear(inner, self.down[number]) * weights[token, choice, None]
            result.index_add_(0, token, self.done(outer, number))
        return result

    def done(self, outer, number):
        return outer


class Adapted(nn.Module):
    """Rows of one sign and of the other go through different weights."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        result = torch.zeros_like(x)
        for positive, layer in ((True, self.one), (False, self.other)):
            mask = (x.sum((1, 2)) > 0) == positive
            result[mask] = layer(x[mask])
        return result


class Logarithms(nn.Module):
    """Takes logarithms of positive rows; those of other rows are NaN."""

    def forward(self, x):
        (rows,) = torch.where(x[:, 0, 0] > 0)
        return x.index_add(0, rows, torch.log(x[rows]))


class Sorted(nn.Module):
    """Experts of tokens sorted by expert: split by how many tokens each has, and joined again."""

    def __init__(self):
        super().__init__()
        self.router = nn.Linear(4, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, 6, 4))
        self.down = nn.Parameter(torch.randn(EXPERTS, 4, 6))

    def forward(self, x):
        tokens = x.view(-1, 4)
        weights, ids = self.router(tokens).softmax(-1).topk(2, dim=-1)
        counts = functional.one_hot(ids, EXPERTS).sum((0, 1))
        order = ids.flatten().sort(0).indices
        token = order.div(2, rounding_mode="trunc")
        sizes = counts.tolist()
        inner = self.joined(tokens[token].split(sizes, dim=0), self.up, sizes)
        outer = self.joined(functional.silu(inner).split(sizes), self.down, sizes)
        rows = outer * weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add(0, token, rows).view(x.shape)

    def joined(self, parts, weights, sizes):
        return torch.cat([functional.linear(parts[i], weights[i]) for i in range(EXPERTS)], dim=0)


class Consecutive(nn.Module):
    """Takes logarithms of the first rows, which are positive, and squares of the others."""

    def forward(self, x):
        rows = x[:, 0].clone()
        count = (rows[:, 0] > 0).sum()
        counts = torch.stack((count, rows.shape[0] - count))
        first, other = torch.split(rows, counts.tolist())
        counts += 1  # this is after they were read
        return torch.cat((torch.log(first), other * other))


def loaded(module):
    return parframe.load(
        module.double(),
        inputs={"x": torch.randn(3, 7, 4).double()},
        dynamic={"x": {0: "batch", 1: "sequence"}},
    )


@pytest.mark.parametrize(
    "module",
    [lambda: Routed(), lambda: Routed("item"), Adapted, Logarithms, Sorted, Consecutive],
    ids=["routed", "routed by numbers", "adapted", "logarithms", "sorted", "consecutive"],
)
def test_selected_rows_compute_the_same(module):
    module = module().double()
    graph = loaded(module)
    for sizes in ((1, 1, 4), (2, 5, 4)):  # few tokens leave an expert without any
        x = torch.randn(*sizes).double()
        x = torch.where(x[:, :1, :1] > 0, x.abs(), x)
        x = x[x[:, 0, 0].argsort(descending=True)]
        (found,) = torch.utils._pytree.tree_leaves(
            run_graph(graph, {"x": x}, read_state_dict(graph, module))
        )
        assert torch.isfinite(found).all()
        assert torch.allclose(found, module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "spec"), [(Routed, "DP2"), (Sorted, "DP2"), (Sorted, "TP2")])
def test_plans_of_selected_rows_are_verified(kind, spec):
    plan = parframe.partition(loaded(kind()), spec)
    assert parframe.check(plan).ok
    assert parframe.verify(plan).ok


class Together(Routed):
    def done(self, outer, number):
        return outer - outer.mean(0)


class Biased(Routed):
    def forward(self, x):
        for number in (x[0, 0] > 0).nonzero():
            x = x + self.up[number[0], 0]
        return x


class Counted(Routed):
    def done(self, outer, number):
        return outer * outer.shape[0]


class Turns(nn.Module):
    def forward(self, x):
        turns, result = 1, torch.zeros_like(x)
        for number in (x[0, 0] > 0).nonzero():
            (rows,) = torch.where(x[:, 0, 0] > number[0])
            result.index_add_(0, rows, x[rows])
            turns += 1
        return result / turns


class Emptied(nn.Module):
    def forward(self, x):
        (rows,) = torch.where(x[:, 0, 0] > 0)
        return x * 2 if rows.numel() == 0 else x.index_add(0, rows, x[rows])


class Many(nn.Module):
    def forward(self, x):
        (rows,) = torch.where(x[:, 0, 0] > 0)
        return x * 2 if rows.numel() > 2 else x.index_add(0, rows, x[rows])


class Broken(nn.Module):
    def forward(self, x):
        result = torch.zeros_like(x)
        for number in (x[0, 0] > 0).nonzero():
            (rows,) = torch.where(x[:, 0, 0] > number[0])
            result.index_add_(0, rows, x[rows])
            break
        return result + 1


class Returned(nn.Module):
    def forward(self, x):
        return x[x[:, 0, 0] > 0]


class Backwards(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat([parts[i] for i in reversed(range(EXPERTS))])


class Some(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat(parts[1:])


class AcrossColumns(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat(parts, dim=1)


class Mean(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat([part - part.mean(0) for part in parts])


class Asked(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat([parts[i] for i in range(EXPERTS) if sizes[i] > 0])


class Shared(Sorted):
    def joined(self, parts, weights, sizes):
        return torch.cat([part / size for part, size in zip(parts, sizes, strict=True)])


class Sized(nn.Module):
    def forward(self, x):
        return x.split((x[0] > 0).sum(0).tolist(), dim=1)[0]


class ReturnedSizes(nn.Module):
    def forward(self, x):
        return x, (x[0] > 0).sum(0).tolist()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Together, "mean across selected rows"),
        (Biased, "used outside its iteration"),
        (Counted, "across selected rows"),
        (Turns, "when no rows are selected, or counts them"),
        (Emptied, "when no rows are selected, or counts them"),
        (Many, "compared with a number"),
        (Broken, "ends before its last iteration"),
        (Returned, "returns a selection"),
        (Backwards, "cat of other than all groups of rows in order"),
        (Some, "cat of other than all groups of rows in order"),
        (AcrossColumns, "cat of other than all groups of rows in order"),
        (Mean, "mean across selected rows"),
        (Asked, "used for other than splitting rows"),
        (Shared, "used for other than splitting rows"),
        (Sized, "by numbers read from a tensor"),
        (ReturnedSizes, "returns a selection"),
    ],
)
def test_uses_that_all_rows_cannot_compute_are_refused(kind, why):
    with pytest.raises(ParframeError, match=why):
        loaded(kind())
