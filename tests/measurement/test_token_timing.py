import pytest

from parframe.measurement.token_timing import TokenTimes, summarize_latency


def test_latencies_are_medians_over_all_prompts_and_batches():
    one = TokenTimes(1.0, ((1.5, 2.0, 2.5, 3.0),) * 2)
    other = TokenTimes(3.0, ((3.7, 4.2, 4.7, 5.2),) * 2)
    latency = summarize_latency([one, other, one])
    assert latency["ttft_ms"] == 500
    assert latency["tpot_ms"] == pytest.approx(500)
    assert latency["tokens_per_second_per_user"] == 2
    assert latency["output_tokens_per_second"] == 4


def test_tokens_that_are_received_together_count_with_their_mean():
    late = TokenTimes(0.0, ((1.0, 1.004, 1.004, 1.008, 1.008, 1.012),))
    assert max(late.window_means(8e-3)) == pytest.approx(2e-3, rel=0.21)
    steady = TokenTimes(0.0, ((1.0, 1.02, 1.04, 1.06),))
    assert steady.window_means() == pytest.approx([0.02] * 3)
