"""Sampling of tokens; equal logits give equal tokens on any rank, batch and mesh.

A draw has no state: its random number follows from the request's seed and number and the token's
step. Probabilities are converted to integers before they are added, so the order of additions does
not matter.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence

import torch

from parframe.errors import ParframeError
from parframe.generation.requests import Sampling

_BITS = 53
"""Bits of a random number, and largest number of bits of a token's weight: those of a float64."""

_SUM_BITS = 62
"""Bits of the sum of all weights."""

_FEW = 1024
"""Number of tokens that are sorted before all are."""


def sample(
    logits: torch.Tensor,
    samplings: Sequence[Sampling],
    numbers: Sequence[int],
    steps: Sequence[int],
) -> torch.Tensor:
    """Sample the next token of every row.

    Parameters
    ----------
    logits
        ``[rows, vocabulary]``, of any floating-point dtype; they are read in float32.
    samplings
        Sampling parameters of each row. Greedy rows take the first of the most likely tokens;
        others apply temperature, then top-k, then top-p, as transformers does [1]_.
    numbers, steps
        For each row, the number of the request and the number of tokens drawn so far.

    Returns
    -------
    torch.Tensor
        ``[rows]``, int64, on the device of the logits.

    Raises
    ------
    ParframeError
        Of kind ``run``, if a row has logits that are not finite.

    References
    ----------
    .. [1] Holtzman, A., Buys, J., Du, L., Forbes, M., Choi, Y. "The Curious Case of Neural Text
       Degeneration", ICLR 2020.
    """
    scores = logits.to(torch.float32)
    highest, tokens = scores.max(dim=-1)  # nan in rows that have one
    _check_logits(highest.tolist(), numbers)
    drawn = [row for row, sampling in enumerate(samplings) if not sampling.greedy]
    if not drawn:
        return tokens
    rows = torch.tensor(drawn, device=scores.device)
    chosen = [samplings[row] for row in drawn]
    draws = [draw_uniform(samplings[row].seed, numbers[row], steps[row]) for row in drawn]
    found = _invert(compute_weights(scores[rows], chosen), draws)
    return tokens.index_copy(0, rows, found)


def draw_uniform(seed: int, number: int, step: int) -> float:
    """Return the random number in [0, 1) of a draw, equal on every rank and in every run."""
    key = struct.pack("<QQQ", seed, number, step)
    digest = hashlib.blake2b(key, digest_size=8, person=b"parframe").digest()
    return (int.from_bytes(digest, "little") >> (64 - _BITS)) / (1 << _BITS)


def compute_weights(scores: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Compute the weight of each token as an integer; 0 for excluded tokens.

    Parameters
    ----------
    scores
        ``[rows, vocabulary]``, float32.
    samplings
        Sampling parameters of each row, none of them greedy.

    Returns
    -------
    torch.Tensor
        ``[rows, vocabulary]``, int64, proportional to the probabilities.
    """
    device = scores.device
    bits = min(_BITS, _SUM_BITS - scores.shape[1].bit_length())
    temperatures = _to_column([s.temperature for s in samplings], torch.float64, device)
    below = (scores - scores.amax(dim=-1, keepdim=True)).double() / temperatures
    found = (below.exp() * (1 << bits)).to(torch.int64)  # 2**bits for the most likely token
    found = _top_k(found, scores, samplings)
    return _top_p(found, scores, samplings)


def _top_k(
    found: torch.Tensor, scores: torch.Tensor, samplings: Sequence[Sampling]
) -> torch.Tensor:
    """Keep the k most likely tokens, and those as likely as the last of them."""
    size = scores.shape[1]
    counts = [min(s.top_k or size, size) for s in samplings]
    most = max((count for count in counts if count < size), default=0)
    if not most:
        return found
    places = _to_column([min(count, most) - 1 for count in counts], torch.int64, scores.device)
    least = scores.topk(most, dim=-1).values.gather(1, places)
    whole = _to_column([count == size for count in counts], torch.bool, scores.device)
    return found.where(whole | (scores >= least), 0)


def _top_p(
    found: torch.Tensor, scores: torch.Tensor, samplings: Sequence[Sampling]
) -> torch.Tensor:
    """Keep the fewest of the most likely tokens whose total probability is at least p.

    Of tokens as likely as the last one, the first are kept.
    """
    rows = [row for row, s in enumerate(samplings) if s.top_p is not None and s.top_p < 1]
    if not rows:
        return found
    index = torch.tensor(rows, device=scores.device)
    own, score = found[index], scores[index]
    shares = _to_column([samplings[row].top_p or 1.0 for row in rows], torch.float64, scores.device)
    wanted = (own.sum(dim=-1, keepdim=True).double() * shares).ceil().to(torch.int64)
    place = _find_last_token(own, score, wanted)
    last = score.gather(1, place)
    equal = score == last
    above = own.where(score > last, 0)
    missing = wanted - above.sum(dim=-1, keepdim=True)
    count = -(-missing // own.gather(1, place).clamp(min=1))
    kept = own.where((score > last) | (equal & (equal.cumsum(dim=-1) <= count)), 0)
    return found.index_copy(0, index, kept)


def _find_last_token(
    found: torch.Tensor, scores: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Find the token at which the sum over the most likely tokens reaches the wanted weight."""
    for most in (min(_FEW, scores.shape[1]), scores.shape[1]):
        order = scores.topk(most, dim=-1).indices
        sums = found.gather(1, order).cumsum(dim=-1)
        if most == scores.shape[1] or (sums[:, -1:] >= wanted).all():
            break  # few tokens usually have nearly all of the probability
    return order.gather(1, torch.searchsorted(sums, wanted).clamp(max=most - 1))


def _invert(found: torch.Tensor, draws: Sequence[float]) -> torch.Tensor:
    """Return the first token at which the cumulative weight exceeds the drawn share."""
    sums = found.cumsum(dim=-1)
    total = sums[:, -1:]
    shares = _to_column(draws, torch.float64, found.device)
    wanted = (total.double() * shares).to(torch.int64).minimum(total - 1)
    return torch.searchsorted(sums, wanted, right=True)[:, 0]


def _to_column(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None]


def _check_logits(highest: Sequence[float], numbers: Sequence[int]) -> None:
    for number, logit in zip(numbers, highest, strict=True):
        if not math.isfinite(logit):
            raise ParframeError(
                "run",
                f"request {number}",
                f"its largest logit is {logit}",
                "use a dtype with a larger range (bfloat16 or float32), or check the weights",
            )
