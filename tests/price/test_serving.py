"""Step times, static batches and steady states of engines, computed from given kernel times."""

import math

import attrs
import pytest

from parframe.price.cost.estimate import Estimate, total
from parframe.price.cost.timers import Timer, TimerSum
from parframe.price.serving.deployment import Deployment
from parframe.price.serving.device_memory import DeviceMemory
from parframe.price.serving.engines import Engine, find_engine, shipped_engines
from parframe.price.serving.steady_state import (
    max_concurrency,
    mean_step_time,
    predict_closed_loop,
    predict_open_loop,
    predict_saturation,
    predict_static_batch,
)
from parframe.price.serving.step_time import StepBatch, step_time
from parframe.price.work.work import Attention, Footprint, Product, Stage, Step, Work

BARE = Engine("bare", step_overhead=0.0, reserved_bytes=0.0, cache_fraction=1.0)


@attrs.frozen(eq=False)
class PlainClock:
    """A millisecond for a product, and a microsecond for a token; attention by positions."""

    def kernel(self, kernel):
        if isinstance(kernel, Attention):
            return Timer(
                lambda step: (
                    1e-9
                    * step.sequences
                    * step.new_tokens
                    * (step.cached_tokens + step.new_tokens / 2)
                )
            )
        return Timer(lambda step: 1e-3 + 1e-6 * step.sequences * step.new_tokens)

    def communication(self, communication):
        return Timer(lambda step: 0.0)

    def among(self, busy):
        return self


@attrs.frozen(eq=False)
class ShareClock(PlainClock):
    """A microsecond for each token that is here."""

    def kernel(self, kernel):
        return Timer(lambda step: 1e-6 * step.sequences * step.new_tokens * kernel.share)


CLOCK = PlainClock()


def work(stages=1):
    footprint = Footprint(weights=1_000_000, unquantized=0, cache=((100, None),))
    kernels = (Product(8, 8), Attention(1, 1, 8, 8, 100))
    return Work((Stage(kernels, (), footprint),) * stages, devices=stages, layers=4 * stages)


def deployment(engine=BARE, memory=1e9, stages=1):
    return Deployment(work(stages), CLOCK, engine, DeviceMemory(memory))


def test_step_time_is_kernels_plus_engine_overhead():
    host = attrs.evolve(BARE, step_overhead=5e-3, layer_overhead=1e-3, sequence_overhead=1e-4)
    load = StepBatch(decodes=10, context=100)
    bare = step_time(work(), CLOCK, BARE, load).value
    assert bare == pytest.approx(1e-3 + 10e-6 + 1e-9 * 10 * 100.5)
    assert step_time(work(), CLOCK, host, load).value == pytest.approx(bare + 5e-3 + 4e-3 + 1e-3)


def test_a_timer_sum_equals_the_total_of_its_timers():
    parts = [
        (Product(8, 8, share), Timer(lambda step: step.sequences, 0.1, ("x",)))
        for share in (1, 0.5)
    ]
    whole, divided = Step(2, 1), Step(3, 1)
    alone = [timer(step) for (_, timer), step in zip(parts, (whole, divided), strict=True)]
    assert (
        TimerSum.of(parts)(whole, divided)
        == total(alone)
        == Estimate(5.0, total(alone).log_std, ("x",))
    )


def test_launch_overhead_overlaps_with_kernels():
    slow = attrs.evolve(BARE, launch_overhead=1.0)
    assert step_time(work(), CLOCK, slow, StepBatch(1)).value == pytest.approx(4.0, rel=1e-3)


def test_kv_reread_adds_time_for_each_further_query_head_of_a_group():
    kernels = (Attention(8, 2, 8, 8, 100),)
    grouped = Work((Stage(kernels, (), Footprint(1, 0, ((100, None),))),), 1)
    load = StepBatch(decodes=4, context=1000)
    once = step_time(grouped, CLOCK, BARE, load).value
    again = step_time(grouped, CLOCK, attrs.evolve(BARE, kv_reread=0.5), load).value
    assert again == pytest.approx(once * (1 + 0.5 * 3))


def test_overlapping_stages_take_the_time_of_the_slowest_stage_for_all_micro_batches():
    load = StepBatch(decodes=8)
    one = step_time(work(), CLOCK, BARE, StepBatch(decodes=2)).value
    together = step_time(work(4), CLOCK, BARE, load).value
    in_turn = step_time(work(4), CLOCK, attrs.evolve(BARE, stage_overlap=0.0), load).value
    assert together == pytest.approx(4 * one)
    assert in_turn == pytest.approx(16 * one)


def test_a_single_request_runs_on_one_replica():
    footprint = Footprint(1, 0, ((100, None),), batch_share=0.25)
    split = Work((Stage((Product(8, 8, 0.25),), (), footprint),), 4, replicas=4)
    one = step_time(split, ShareClock(), BARE, StepBatch(prefills=1, prefill_tokens=1000)).value
    four = step_time(split, ShareClock(), BARE, StepBatch(prefills=4, prefill_tokens=1000)).value
    eight = step_time(split, ShareClock(), BARE, StepBatch(prefills=8, prefill_tokens=1000)).value
    assert one == four == pytest.approx(1e-3)
    assert eight == pytest.approx(2 * one)


def test_a_single_request_passes_the_stages_one_by_one():
    assert step_time(work(4), CLOCK, BARE, StepBatch(1)).value == pytest.approx(
        4 * step_time(work(), CLOCK, BARE, StepBatch(1)).value
    )


def test_capacity_is_the_memory_left_by_the_weights():
    # 2 MB of weights leave 8 MB; a sequence of 50 positions of 100 elements needs 10 kB.
    assert deployment(memory=10e6).capacity(50, 0) == pytest.approx(800)


def test_the_cache_fraction_may_be_of_the_total_memory():
    whole = attrs.evolve(BARE, cache_fraction=0.8, fraction_of_total=True)
    # 8 of 10 MB less 2 MB of weights.
    assert deployment(whole, memory=10e6).capacity(50, 0) == pytest.approx(600)


def test_a_sliding_window_limits_the_cache_of_a_sequence():
    footprint = Footprint(0, 0, ((100, 10),))
    memory = DeviceMemory(1e6)
    assert memory.sequence_bytes(footprint, 1000) == memory.sequence_bytes(footprint, 10)


def test_a_batch_that_does_not_fit_into_memory_is_served_in_waves():
    whole = predict_static_batch(deployment(), 64, 100, 10)
    small = deployment(memory=2e6 + 20 * 110 * 200)
    waves = predict_static_batch(small, 64, 100, 10)
    assert (whole.waves, waves.waves) == (1, 4)
    assert waves.e2e_latency.value > whole.e2e_latency.value
    assert "at once" in waves.e2e_latency.notes[-1]


def test_a_steady_state_step_prefills_requests_that_replace_finished_ones():
    rows, prompt, output = 8, 100, 50
    plain = step_time(work(), CLOCK, BARE, StepBatch(rows, prompt + output / 2)).value
    mean = mean_step_time(deployment(), rows, prompt, output).value
    per_token = 1e-6 * rows * prompt / output
    assert mean == pytest.approx(plain + per_token, rel=0.05)


def test_tokens_per_step_limit_concurrency_to_leave_tokens_for_prefill():
    tight = attrs.evolve(BARE, max_batched_tokens=512)
    rows, limit = max_concurrency(deployment(tight), 448, 64)
    assert (rows, limit) == (64, "tokens per step")


def test_a_closed_loop_has_all_clients_in_flight():
    served = predict_closed_loop(deployment(), 16, 100, 50)
    assert served.sequences == 16
    one = served.ttft.value + 49 * served.tpot.value
    assert served.request_rate.value == pytest.approx(16 / one)


def test_a_single_client_does_not_wait_for_admission():
    queueing = attrs.evolve(BARE, admission_wait=1.0)
    alone = predict_closed_loop(deployment(queueing), 1, 100, 50).ttft.value
    assert alone == predict_closed_loop(deployment(), 1, 100, 50).ttft.value
    several = predict_closed_loop(deployment(queueing), 8, 100, 50).ttft.value
    assert several > predict_closed_loop(deployment(), 8, 100, 50).ttft.value


def test_open_loop_concurrency_follows_littles_law():
    served = predict_open_loop(deployment(), 20.0, 100, 50)
    assert served.request_rate.value == 20.0
    assert served.sequences == pytest.approx(20.0 * 50 * served.tpot.value, rel=0.02)


def test_no_offered_rate_exceeds_the_saturation_rate():
    most = predict_saturation(deployment(), 100, 50, requests=100)
    over = predict_open_loop(deployment(), 1e6, 100, 50, requests=100)
    assert over.request_rate.value == most.request_rate.value
    assert any("exceeds the maximum" in why for why in over.notes)


def test_ttft_grows_with_the_offered_rate():
    firsts = [predict_open_loop(deployment(), rate, 1000, 50).ttft.value for rate in (1, 100, 400)]
    assert firsts == sorted(firsts)
    assert math.isfinite(firsts[-1])


@pytest.mark.parametrize(
    ("framework", "name"),
    [
        ("TensorRT-LLM 0.14.0", "TensorRT-LLM 0.14"),
        ("TensorRT-LLM 0.14.0 + tensorrtllm_backend", "TensorRT-LLM 0.14 served"),
        ("TensorRT-LLM 0.17", "TensorRT-LLM 0.17"),
        ("trtllm 1.0.0rc3", "TensorRT-LLM 1"),
        ("TensorRT-LLM", "TensorRT-LLM batches"),
        ("vllm", "vLLM"),
        ("vLLM 0.6.3", "vLLM"),
        ("vllm 0.11.0", "median"),
        ("gpt-fast (PyTorch)", "gpt-fast"),
        ("never heard of", "median"),
        (None, "median"),
    ],
)
def test_an_engine_is_found_by_its_spellings_in_tables(framework, name):
    assert find_engine(framework).name == name


def test_the_median_engine_is_last_and_not_measured():
    assert shipped_engines()[-1].name == "median"
    assert not shipped_engines()[-1].measured
