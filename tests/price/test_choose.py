"""Ranking of composites, explanations, and errors of `parframe choose`."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import parframe
from parframe.hardware import cluster
from parframe.mesh.composite_enumeration import enumerate_composites
from parframe.models import find_model
from parframe.price.choose.bottlenecks import break_down
from parframe.price.choose.ranking import find_larger_cluster
from parframe.price.choose.setup import share_equal_stages
from parframe.price.choose.use_cases import find_use_case
from parframe.price.predict.predictions import predict_row
from parframe.price.predict.query_resolution import Registry
from parframe.price.predict.shipped_models import servable_model
from parframe.price.work.compressed.strategy_work import composite_work_reader, usable_strategies
from parframe.report.explanations import (
    explain_bottleneck,
    explain_composite,
    explain_loss,
)


@pytest.fixture(scope="module")
def on_eight():
    return parframe.choose("llama-3-70b", "8xH100")


def test_every_product_of_degrees_is_a_composite_once():
    found = enumerate_composites(12, ("TP", "PP", "XX"))
    assert len(found) == len(set(found)) == 18  # 12 = 2 * 2 * 3 in three factors
    assert found[0] == "TP12"
    assert "XX2PP2TP3" in found


def test_all_composites_are_ranked_or_excluded_with_a_reason(on_eight):
    named = {one.composite for one in on_eight.ranked} | set(on_eight.excluded)
    assert named == set(enumerate_composites(8, ("PP", "DP", "TP")))
    assert "weights need 131" in on_eight.excluded["DP8"]


def test_strategies_are_used_if_the_model_has_the_dimensions_they_need():
    codes = ("PP", "EP", "TP")
    assert usable_strategies(find_model("mixtral-8x7b").graph(), codes) == ["PP", "EP", "TP"]
    assert usable_strategies(find_model("mistral-7b").graph(), codes) == ["PP", "TP"]


def test_the_best_composite_meets_the_limits_with_the_highest_throughput(on_eight):
    best, use = on_eight.best, on_eight.use
    assert best.point.ttft.value <= use.max_ttft
    assert best.point.tpot.value <= use.max_tpot
    keeping = [one for one in on_eight.ranked if not one.violations]
    assert best.point.output_rate.value == max(one.point.output_rate.value for one in keeping)


def test_equal_stages_over_equal_links_are_one_object():
    work = composite_work_reader(find_model("llama-3-70b").graph(), ("PP", "TP"))("PP8TP4")
    _, across, within, again, *_ = share_equal_stages(work, cluster("32xH100")).stages
    assert across is again  # both send to the next node of two stages
    assert across.communication[0] == within.communication[0]
    assert across.communication[1].ranks != within.communication[1].ranks


def test_no_point_dominates_the_pareto_front(on_eight):
    front = on_eight.pareto_front()
    for one in on_eight.ranked:
        for at in one.candidate.points:
            assert any(
                on.rate_per_user >= at.rate_per_user and on.rate_per_device >= at.rate_per_device
                for _, on in front
            )
    users = [at.rate_per_user for _, at in front]
    assert users == sorted(users, reverse=True)
    assert len(front) > 3


def test_the_latency_objective_prefers_tensor_parallelism(on_eight):
    use = find_use_case("chat").override(concurrency=1.0)
    quick = parframe.choose("llama-3-70b", "8xH100", use, objective="latency")
    assert quick.ranked[0].composite == "TP8"
    assert quick.ranked[0].point.tpot.value < on_eight.best.point.tpot.value


def test_explanations_name_the_bottleneck_and_the_loss_of_the_second(on_eight):
    best, second = on_eight.ranked[:2]
    assert "bound by" in explain_bottleneck(best, on_eight.use)
    assert explain_loss(best, second, on_eight.use)
    assert explain_composite(on_eight, "DP8").startswith("excluded: weights need")
    assert "rank 2 of" in explain_composite(on_eight, second.composite)
    split = next(one for one in on_eight.ranked if one.composite == "TP8")
    breakdown = break_down(split.candidate, split.point, on_eight.use)
    assert breakdown.weights == pytest.approx(70.6e9 * 2 / 8, rel=0.03)


def test_long_prompts_are_bound_by_compute_and_decode_by_bandwidth():
    labels = parframe.choose("llama-3-8b", "1xL4", "sentiment")
    assert "bound by compute" in explain_bottleneck(labels.ranked[0], labels.use)
    alone = find_use_case("chat").override(concurrency=1.0)
    talk = parframe.choose("llama-3-8b", "1xL4", alone, objective="latency")
    assert "bound by memory bandwidth" in explain_bottleneck(talk.ranked[0], talk.use)


def test_the_smallest_larger_cluster_is_found_for_a_model_that_does_not_fit():
    small = parframe.choose("llama-3-70b", "1xH100")
    assert not small.ranked
    codes = ("PP", "DP", "TP")
    work = composite_work_reader(find_model("llama-3-70b").graph(), codes)
    devices, composite = find_larger_cluster(work, small.setup, small.use, codes)
    assert devices == 2
    assert composite in ("TP2", "PP2")


def test_the_search_for_a_larger_cluster_skips_no_number_of_devices():
    small = parframe.choose("llama-3.1-405b", "1xH100")
    codes = ("PP", "DP", "TP")
    work = composite_work_reader(find_model("llama-3.1-405b").graph(), codes)
    devices, _ = find_larger_cluster(work, small.setup, small.use, codes)
    assert devices == 11
    assert not parframe.choose("llama-3.1-405b", "10xH100").ranked
    assert parframe.choose("llama-3.1-405b", "11xH100").ranked


def test_intervals_of_choose_equal_those_of_predict():
    use = find_use_case("chat").override(concurrency=8.0)
    found = parframe.choose("llama-3.1-8b", "1xL4", use, objective="latency", engine="vLLM")
    low, high = found.ranked[0].point.tpot.interval()
    row = {
        "model": "llama-3.1-8b", "gpu": "L4", "concurrency": "8", "isl": "1024", "osl": "256",
        "metric": "tpot", "unit": "s", "framework": "vLLM",
    }  # fmt: skip
    predicted = predict_row(row, Registry(servable_model))
    assert (low, high) == pytest.approx((predicted.low, predicted.high), rel=1e-3)
    assert "vLLM was not measured on l4" in found.ranked[0].point.tpot.notes


def test_estimate_of_a_plan_equals_the_estimate_of_its_composite(on_eight):
    plan = parframe.partition(find_model("llama-3-70b").graph(), "TP8")
    alone = parframe.estimate(plan, "8xH100")
    ranked = next(one for one in on_eight.ranked if one.composite == "TP8")
    mine, theirs = alone.points[3], ranked.candidate.points[3]
    assert mine.tpot.value == pytest.approx(theirs.tpot.value, rel=1e-9)
    assert alone.max_concurrency == pytest.approx(ranked.candidate.max_concurrency, rel=1e-9)


def test_a_strategy_declared_in_a_spec_is_estimated(call, tmp_path):
    spec = tmp_path / "declared.toml"
    model = tmp_path / "config.json"
    model.write_text(json.dumps(find_model("mistral-7b").config))
    spec.write_text(
        f'model = "{model.name}"\nparallel = "WP2"\n[strategies.wp]\nsplits = ["ffn", "vocab"]\n'
    )
    done = call("estimate", spec, "--devices", "2xH100", "--json")
    assert done.code == 0, done.err
    facts = done.json
    assert facts["plan"] == "WP2"
    assert 7e9 < facts["weight_bytes"] < 14.5e9


def test_the_best_composite_is_written_as_a_valid_spec(call, tmp_path):
    spec, picture = tmp_path / "best.toml", tmp_path / "front.svg"
    done = call(
        "choose", "mistral-7b", "--devices", "2xH100", "-o", spec, "--plot", picture, "--json"
    )
    assert done.code == 0, done.err
    best = done.json["best"]
    read = parframe.Spec.read(spec)
    assert read.parallel == best
    assert read.devices == 2
    assert read.model.exists()
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("llama-3-70c", "--devices", "8xH100"), 20, "did you mean Llama 3 70B"),
        (("llama-3-70b", "--devices", "8xH10"), 15, "H10"),
        (("llama-3-70b", "--devices", "0xH100"), 15, "give 1"),
        (("mistral-7b", "--devices", "1xH100", "--use-case", "chatt"), 36, "did you mean 'chat'"),
        (("llama-3-70b", "--devices", "1xL4"), 36, "no composite fits"),
        (("mistral-7b", "--devices", "1xH100", "--max-ttft", "10", "--max-tpot", "50"), 36,
         "contradict each other"),
        (("mistral-7b", "--devices", "1xL4", "--max-tpot", "1"), 36, "the nearest is"),
        (("mistral-7b", "--devices", "2xH100", "--explain", "TP4"), 36, "not a composite of 2"),
        (("mistral-7b", "--devices", "7xH100", "--strategies", "EP"), 36, "strategies"),
        (("mistral-7b", "--devices", "2xH100", "--strategies", "TP,XP"), 13, "XP"),
        (("mistral-7b", "--devices", "2xH100", "--strategies", "XX"), 11, "strategies XX"),
        (("mistral-7b", "--devices", "2xH100", "--plot", "front.png"), 2, "ends in .svg"),
        (("mistral-7b", "--devices", "65536xH100"), 36, "16,384 devices at most"),
        (("mistral-7b", "--devices", "2xH100", "--max-tpot", "nan"), 36, "maximum TPOT in seconds"),
        (("mistral-7b", "--devices", "2xH100", "--prompt-tokens", "1e30"), 36, "prompt tokens"),
        (("mistral-7b", "--devices", "1xT4"), 36, "use 2 devices"),
    ],
)  # fmt: skip
def test_an_impossible_choice_is_an_error(call, arguments, code, expected):
    done = call("choose", *arguments)
    assert done.code == code
    assert expected in done.err


def test_choosing_needs_no_torch():
    script = (
        "import sys, parframe; parframe.choose('mistral-7b', '2xH100');"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
