"""Engines' steps, batches and steady states follow from kernels' times, without any measurement."""

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


def test_a_step_is_its_kernels_and_the_host_beside_them():
    host = attrs.evolve(BARE, step_overhead=5e-3, layer_overhead=1e-3, sequence_overhead=1e-4)
    load = StepBatch(decodes=10, context=100)
    bare = step_time(work(), CLOCK, BARE, load).value
    assert bare == pytest.approx(1e-3 + 10e-6 + 1e-9 * 10 * 100.5)
    assert step_time(work(), CLOCK, host, load).value == pytest.approx(bare + 5e-3 + 4e-3 + 1e-3)


def test_what_follows_each_other_takes_as_long_as_its_parts_together():
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


def test_launching_is_a_floor_and_no_sum():
    slow = attrs.evolve(BARE, launch_overhead=1.0)
    assert step_time(work(), CLOCK, slow, StepBatch(1)).value == pytest.approx(4.0, rel=1e-3)


def test_an_engine_may_read_the_cache_again_for_each_query_head_of_a_group():
    kernels = (Attention(8, 2, 8, 8, 100),)
    grouped = Work((Stage(kernels, (), Footprint(1, 0, ((100, None),))),), 1)
    load = StepBatch(decodes=4, context=1000)
    once = step_time(grouped, CLOCK, BARE, load).value
    again = step_time(grouped, CLOCK, attrs.evolve(BARE, kv_reread=0.5), load).value
    assert again == pytest.approx(once * (1 + 0.5 * 3))


def test_stages_that_overlap_take_as_long_as_the_slowest_for_all_parts():
    load = StepBatch(decodes=8)
    one = step_time(work(), CLOCK, BARE, StepBatch(decodes=2)).value
    together = step_time(work(4), CLOCK, BARE, load).value
    in_turn = step_time(work(4), CLOCK, attrs.evolve(BARE, stage_overlap=0.0), load).value
    assert together == pytest.approx(4 * one)
    assert in_turn == pytest.approx(16 * one)


def test_a_request_alone_is_wholly_on_one_replica():
    footprint = Footprint(1, 0, ((100, None),), batch_share=0.25)
    split = Work((Stage((Product(8, 8, 0.25),), (), footprint),), 4, replicas=4)
    one = step_time(split, ShareClock(), BARE, StepBatch(prefills=1, prefill_tokens=1000)).value
    four = step_time(split, ShareClock(), BARE, StepBatch(prefills=4, prefill_tokens=1000)).value
    eight = step_time(split, ShareClock(), BARE, StepBatch(prefills=8, prefill_tokens=1000)).value
    assert one == four == pytest.approx(1e-3)
    assert eight == pytest.approx(2 * one)


def test_a_request_alone_passes_the_stages_in_turn():
    assert step_time(work(4), CLOCK, BARE, StepBatch(1)).value == pytest.approx(
        4 * step_time(work(), CLOCK, BARE, StepBatch(1)).value
    )


def test_memory_holds_what_is_left_of_it():
    # 2 MB of weights leave 8 MB; a sequence of 50 positions of 100 elements needs 10 kB.
    assert deployment(memory=10e6).capacity(50, 0) == pytest.approx(800)


def test_a_share_may_be_of_all_memory():
    whole = attrs.evolve(BARE, cache_fraction=0.8, fraction_of_total=True)
    # 8 of 10 MB less 2 MB of weights.
    assert deployment(whole, memory=10e6).capacity(50, 0) == pytest.approx(600)


def test_a_window_bounds_what_a_sequence_needs():
    footprint = Footprint(0, 0, ((100, 10),))
    memory = DeviceMemory(1e6)
    assert memory.sequence_bytes(footprint, 1000) == memory.sequence_bytes(footprint, 10)


def test_a_batch_that_memory_cannot_hold_goes_in_waves():
    whole = predict_static_batch(deployment(), 64, 100, 10)
    small = deployment(memory=2e6 + 20 * 110 * 200)
    waves = predict_static_batch(small, 64, 100, 10)
    assert (whole.waves, waves.waves) == (1, 4)
    assert waves.e2e_latency.value > whole.e2e_latency.value
    assert "at once" in waves.e2e_latency.notes[-1]


def test_a_steady_step_reads_the_prompts_of_those_that_leave():
    rows, prompt, output = 8, 100, 50
    plain = step_time(work(), CLOCK, BARE, StepBatch(rows, prompt + output / 2)).value
    mean = mean_step_time(deployment(), rows, prompt, output).value
    per_token = 1e-6 * rows * prompt / output
    assert mean == pytest.approx(plain + per_token, rel=0.05)


def test_a_step_has_room_for_prompts_beside_those_that_decode():
    tight = attrs.evolve(BARE, max_batched_tokens=512)
    rows, limit = max_concurrency(deployment(tight), 448, 64)
    assert (rows, limit) == (64, "tokens per step")


def test_clients_in_a_loop_are_all_in_flight_and_are_answered_at_their_rate():
    served = predict_closed_loop(deployment(), 16, 100, 50)
    assert served.sequences == 16
    one = served.ttft.value + 49 * served.tpot.value
    assert served.request_rate.value == pytest.approx(16 / one)


def test_who_is_alone_waits_for_nobody():
    queueing = attrs.evolve(BARE, admission_wait=1.0)
    alone = predict_closed_loop(deployment(queueing), 1, 100, 50).ttft.value
    assert alone == predict_closed_loop(deployment(), 1, 100, 50).ttft.value
    several = predict_closed_loop(deployment(queueing), 8, 100, 50).ttft.value
    assert several > predict_closed_loop(deployment(), 8, 100, 50).ttft.value


def test_an_offered_load_has_in_flight_what_littles_law_says():
    served = predict_open_loop(deployment(), 20.0, 100, 50)
    assert served.request_rate.value == 20.0
    assert served.sequences == pytest.approx(20.0 * 50 * served.tpot.value, rel=0.02)


def test_no_load_gets_more_than_saturation_gives():
    most = predict_saturation(deployment(), 100, 50, requests=100)
    over = predict_open_loop(deployment(), 1e6, 100, 50, requests=100)
    assert over.request_rate.value == most.request_rate.value
    assert any("exceeds the maximum" in why for why in over.notes)


def test_the_first_token_waits_longer_the_more_is_offered():
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
def test_an_engine_is_known_by_the_names_that_tables_give_it(framework, name):
    assert find_engine(framework).name == name


def test_the_pooled_engine_comes_last_and_says_so():
    assert shipped_engines()[-1].name == "median"
    assert not shipped_engines()[-1].measured
