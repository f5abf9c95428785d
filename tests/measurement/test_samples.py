from parframe.measurement.samples import Times, estimate_over_rounds, summarize_times


def test_estimates_over_rounds_take_the_median_or_the_fastest_round():
    assert summarize_times([1.0] * 5 + [9.0] * 6) == Times(1.0, 9.0)
    rounds = [Times(4.0, 4.0), Times(1.0, 1.0), Times(1.0, 1.0), Times(3.0, 3.0)]
    assert estimate_over_rounds(rounds, "p10") == (1.0, 0.0)
    assert estimate_over_rounds(rounds, "median")[0] == 2.0
    within = estimate_over_rounds([Times(1.0, 1.1)], "p10")[1]
    assert estimate_over_rounds(rounds, "median")[1] > within > 0
