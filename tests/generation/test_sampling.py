import math
import random

import pytest
import scipy.stats
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from parframe.errors import ParframeError
from parframe.generation import Sampling
from parframe.generation.sampling import compute_weights, draw_uniform, sample

VOCABULARY = 97


def logits(rows, vocabulary=VOCABULARY, seed=0):
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def random_samplings(seed, count):
    """Return random sampling parameters."""
    draw = random.Random(seed)
    return [
        Sampling(
            temperature=draw.choice([0.3, 0.7, 1.0, 1.9]),
            top_k=draw.choice([None, 1, 2, 7, 50, 1000]),
            top_p=draw.choice([None, 0.01, 0.3, 0.9, 0.999, 1.0]),
            seed=draw.randrange(99),
        )
        for _ in range(count)
    ]


def warp(scores, sampling):
    """Apply the warpers of transformers to a row."""
    scores = TemperatureLogitsWarper(sampling.temperature)(None, scores)
    if sampling.top_k is not None:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p is not None and sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    return scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("seed", range(4))
def test_distribution_equals_that_of_transformers(seed, dtype):
    samplings = random_samplings(seed, 40)
    scores = logits(40, seed=seed).to(dtype).float()
    found = compute_weights(scores, samplings).double()
    found /= found.sum(dim=-1, keepdim=True)
    for row, sampling in enumerate(samplings):
        expected = warp(scores[row : row + 1].double(), sampling).softmax(dim=-1)[0]
        if dtype == torch.float32:  # among equal logits, transformers' sort may keep any
            assert found[row][expected == 0].eq(0).all(), sampling
            assert found[row][expected > 1e-12].gt(0).all(), sampling
        torch.testing.assert_close(
            found[row].sort().values, expected.sort().values, rtol=1e-6, atol=1e-9
        )


def test_tokens_as_likely_as_the_last_of_top_k_are_kept():
    scores = torch.tensor([[1.0, 2.0, 2.0, 0.0, 2.0]])
    assert (compute_weights(scores, [Sampling(1.0, top_k=2)]) > 0).tolist() == [
        [False, True, True, False, True]
    ]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (0.999, 4)]
)
def test_top_p_keeps_the_fewest_tokens_of_at_least_its_probability(top_p, kept):
    scores = torch.tensor([[0.125, 0.5, 0.125, 0.25]]).log()
    assert (compute_weights(scores, [Sampling(1.0, top_p=top_p)]) > 0).sum() == kept
    assert (warp(scores, Sampling(1.0, top_p=top_p)) > -math.inf).sum() == kept


def keep_top_p(scores, sampling):
    """Find the tokens that top-p keeps one by one; of equal tokens the first."""
    found = compute_weights(scores, [Sampling(sampling.temperature)])[0].tolist()
    order = sorted(range(len(found)), key=lambda token: (-scores[0, token].item(), token))
    kept, mass = [], 0
    for token in order:
        if mass >= sampling.top_p * sum(found):
            break
        kept.append(token)
        mass += found[token]
    return sorted(kept)


@pytest.mark.parametrize("spread", [0.02, 1.0, 6.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99])
def test_top_p_keeps_the_first_of_equal_tokens_for_any_number_of_sorted_tokens(spread, top_p):
    scores = (spread * logits(1, 3000)).bfloat16().float()
    sampling = Sampling(0.9, top_p=top_p)
    kept = compute_weights(scores, [sampling])[0].nonzero()[:, 0].tolist()
    assert kept == keep_top_p(scores, sampling)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_greedy_takes_the_first_of_the_most_likely_tokens(dtype):
    scores = torch.tensor([[0.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]], dtype=dtype)
    assert sample(scores, [Sampling()] * 2, [0, 1], [0, 0]).tolist() == [1, 0]


def test_row_gets_the_same_token_in_every_batch():
    samplings = [*random_samplings(5, 20), *[Sampling()] * 5]
    numbers, steps = list(range(100, 125)), list(range(25))
    scores = logits(25)
    together = sample(scores, samplings, numbers, steps).tolist()
    for rows in ([3], [20], [24, 3], list(range(24, -1, -1)), list(range(0, 25, 2))):
        alone = sample(
            scores[rows],
            [samplings[row] for row in rows],
            [numbers[row] for row in rows],
            [steps[row] for row in rows],
        )
        assert alone.tolist() == [together[row] for row in rows]


def test_draws_have_the_frequencies_of_the_probabilities():
    count, sampling = 20_000, Sampling(0.8, top_k=12, top_p=0.95, seed=3)
    scores = logits(1, 30) / 3
    expected = warp(scores.double(), sampling).softmax(dim=-1)[0]
    drawn = sample(scores.expand(count, -1), [sampling] * count, [4] * count, range(count))
    seen = torch.bincount(drawn, minlength=30)
    kept = expected > 0
    assert kept.sum() > 5
    assert seen[~kept].sum() == 0
    test = scipy.stats.chisquare(seen[kept].numpy(), (expected[kept] * count).numpy())
    assert test.pvalue > 0.01


def test_draws_of_requests_steps_and_seeds_are_independent():
    keys = [(s, n, t) for s in range(10) for n in range(20) for t in range(20)]
    draws = [draw_uniform(*key) for key in keys]
    assert len(set(draws)) == len(draws)
    assert scipy.stats.kstest(draws, "uniform").pvalue > 0.01
    grid = torch.tensor(draws, dtype=torch.float64).reshape(10, 20, 20)
    for axis in range(3):
        first = grid.narrow(axis, 0, grid.shape[axis] - 1).flatten()
        after = grid.narrow(axis, 1, grid.shape[axis] - 1).flatten()
        assert abs(torch.corrcoef(torch.stack([first, after]))[0, 1]) < 0.05


def test_draws_never_change():
    known = {
        (0, 0, 0): 0.648831398358215,
        (1, 2, 3): 0.7061914804951689,
        (2**64 - 1, 9, 9): 0.9017221733103773,
    }
    assert {key: draw_uniform(*key) for key in known} == known


@pytest.mark.parametrize("temperature", [1e-300, 1e-9])
def test_tiny_temperature_is_greedy(temperature):
    scores = logits(8)
    cold = sample(scores, [Sampling(temperature)] * 8, range(8), [0] * 8)
    assert cold.equal(scores.argmax(dim=-1))


def test_token_without_probability_is_never_drawn():
    scores = torch.full((500, 4), -math.inf)
    scores[:, 2] = 0.0
    drawn = sample(scores, [Sampling(1.5)] * 500, range(500), [0] * 500)
    assert drawn.eq(2).all()


def test_large_vocabulary_does_not_overflow():
    scores = torch.zeros(1, 2**18)
    found = compute_weights(scores, [Sampling(1.0, top_p=0.5)])
    assert (found > 0).sum() == 2**17
    assert found.sum() > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0, top_k=3)])
def test_logits_that_are_not_finite_are_refused(value, sampling):
    scores = logits(3)
    scores[1, 5] = value
    with pytest.raises(ParframeError, match="request 31: its largest logit is"):
        sample(scores, [sampling] * 3, [30, 31, 32], [0, 0, 0])
    with pytest.raises(ParframeError, match="logit is -inf"):
        sample(torch.full((1, 4), -math.inf), [sampling], [0], [0])
