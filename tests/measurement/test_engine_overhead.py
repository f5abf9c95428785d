import attrs
import pytest
from measured_machine import HERE, LLAMA

import parframe
from parframe.hardware import catalog
from parframe.measurement.engine_overhead import ModelRun, ModelRuns, add_engine, predict_latency
from parframe.measurement.samples import Times
from parframe.price.serving.engines import Engine, find_engine_on
from parframe.price.work.work_from_plan import work_from_plan


def test_overheads_are_found_again_from_predicted_runs():
    machine = attrs.evolve(catalog([HERE]).cluster("2xhere").machine, engines={})
    planted = Engine(
        "parframe", step_overhead=2e-3, layer_overhead=1e-4, prefill_overhead=3e-4,
        stage_overhead=5e-4, request_overhead=4e-3, communication=1.2, static_batching=True,
        all_logits=True, max_batched_tokens=512,
    )  # fmt: skip

    def run(layers, composite):
        graph = parframe.load({**LLAMA, "num_hidden_layers": layers})
        work = work_from_plan(parframe.partition(graph, composite))
        bare = ModelRun(work, layers, "fp32", None, None)
        tpot, ttft = predict_latency(bare, machine, planted)
        return attrs.evolve(bare, tpot=Times(tpot, tpot), ttft=Times(ttft, ttft))

    runs = ModelRuns(
        (run(2, "TP2"), run(6, "TP2")),
        (run(2, "PP2"), run(6, "PP2")),
        (run(4, "TP2"), run(4, "PP2")),
    )
    engine = find_engine_on(add_engine(machine, runs, 1000, "p10"))
    for name in (
        "step_overhead", "layer_overhead", "prefill_overhead", "stage_overhead",
        "request_overhead", "communication",
    ):  # fmt: skip
        assert getattr(engine, name) == pytest.approx(getattr(planted, name)), name
    assert engine.residual == {
        "tpot": pytest.approx(0, abs=1e-6),
        "ttft": pytest.approx(0, abs=1e-6),
    }
