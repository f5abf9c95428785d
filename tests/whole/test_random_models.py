"""Random models under random composites: the plan is accepted, and computes what PyTorch does."""

import models
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from plan_assertions import assert_equal
from torch import nn
from torch.nn import functional

from parframe.checking import check
from parframe.loading import load
from parframe.mesh import parse_composite
from parframe.partitioning import partition
from parframe.simulation import simulate

pytestmark = pytest.mark.slow

WIDTH = 24


class Feed(nn.Module):
    """A feed-forward with a residual, plain or gated, its gate fused or not."""

    def __init__(self, inner, gate, bias):
        super().__init__()
        self.gate = gate
        self.up = nn.Linear(WIDTH, inner * (2 if gate == "fused" else 1), bias=bias)
        self.side = nn.Linear(WIDTH, inner, bias=bias)
        self.down = nn.Linear(inner, WIDTH, bias=bias)

    def forward(self, x):
        up = self.up(x)
        if self.gate == "fused":
            left, right = up.chunk(2, -1)
            up = functional.silu(left) * right
        elif self.gate == "separate":
            up = functional.gelu(up) * self.side(x)
        else:
            up = up.relu()
        return x + self.down(up)


class Attend(nn.Module):
    """Attention with grouped heads, its projections fused or not, causal or not."""

    def __init__(self, heads, group, fused, causal, norm):
        super().__init__()
        self.heads, self.group, self.dim, self.causal = heads, group, 4, causal
        queries, keys = heads * group * 4, heads * 4
        self.widths = (queries, keys, keys)
        self.fused = nn.Linear(WIDTH, queries + 2 * keys) if fused else None
        self.each = None if fused else nn.ModuleList(nn.Linear(WIDTH, n) for n in self.widths)
        self.norm = nn.LayerNorm(4) if norm else nn.Identity()
        self.out = nn.Linear(queries, WIDTH)

    def forward(self, x):
        if self.fused is not None:
            q, k, v = self.fused(x).split(self.widths, -1)
        else:
            q, k, v = (project(x) for project in self.each)
        rows, length = x.shape[:2]
        q = self.norm(q.view(rows, length, self.heads * self.group, 4)).transpose(1, 2)
        k = k.view(rows, length, self.heads, 4).transpose(1, 2)
        v = v.view(rows, length, self.heads, 4).transpose(1, 2)
        k, v = (t.repeat_interleave(self.group, 1) for t in (k, v))
        scores = q @ k.transpose(-1, -2) / 2
        if self.causal:
            scores = scores + torch.full_like(scores, -1e4).triu(1)
        mixed = scores.softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(rows, length, -1))


class Twist(nn.Module):
    """Operators between layers: rotations, norms, softmax, pooling, concatenation."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.pair = nn.ModuleList([nn.Linear(WIDTH, WIDTH // 2), nn.Linear(WIDTH, WIDTH // 2)])

    def forward(self, x):
        if self.kind == "rotate":
            left, right = x[..., : WIDTH // 2], x[..., WIDTH // 2 :]
            return x + torch.cat((-right, left), -1) * self.scale
        if self.kind == "rms":
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale
        if self.kind == "softmax":
            return x * x.softmax(-1)
        if self.kind == "pool":
            return x + x.mean(1, keepdim=True)
        if self.kind == "concatenate":
            return torch.cat([part(x) for part in self.pair], -1)
        return functional.layer_norm(x, (WIDTH,), self.scale)


class Model(nn.Module):
    """Blocks between two projections, with a skip connection over all of them."""

    def __init__(self, blocks):
        super().__init__()
        self.into = nn.Linear(6, WIDTH)
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Linear(WIDTH, 10)

    def forward(self, x):
        first = x = self.into(x)
        for block in self.blocks:
            x = block(x)
        return self.out(x + first), x.amax(-1)


feeds = st.builds(
    Feed,
    st.sampled_from([7, 16, 20]),
    st.sampled_from(["", "fused", "separate"]),
    st.booleans(),
)
attends = st.builds(
    Attend, st.integers(1, 4), st.integers(1, 3), st.booleans(), st.booleans(), st.booleans()
)
twists = st.builds(
    Twist, st.sampled_from(["rotate", "rms", "softmax", "pool", "concatenate", "norm"])
)
recipes = st.lists(st.one_of(feeds, attends, twists), min_size=1, max_size=3)
composites = st.tuples(
    st.sampled_from(["", "TP2", "TP3", "TP5", "TP2SP", "TP4SP"]),
    st.sampled_from(["", "DP2", "DP3"]),
    st.sampled_from(["", "PP2", "PP3"]),
    st.permutations([0, 1, 2]),
).map(lambda drawn: "".join(drawn[i] for i in drawn[3]))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(recipes, composites.filter(bool), st.integers(1, 4), st.integers(1, 5))
def test_a_random_model_is_partitioned_checked_and_equal(blocks, composite, rows, length):
    assume(dict(parse_composite(composite)).get("PP", 1) <= len(blocks))
    model = models.randomize(Model(blocks).double()).eval()
    generator = torch.Generator().manual_seed(rows)
    example = torch.randn(3, 4, 6, generator=generator).double()
    graph = load(model, {"x": example}, {"x": {0: "batch", 1: "sequence"}})
    plan = partition(graph, composite)
    report = check(plan)
    assert report.ok, report.findings[:3]
    x = torch.randn(rows, length, 6, generator=generator).double()
    for actual, expected in zip(simulate(plan, {"x": x}, model), model(x), strict=True):
        assert_equal(actual, expected, 1e-11)
