import os
import subprocess
import sys
from pathlib import Path

import attrs
import handwritten
import pytest
from command import contents, write_spec

import parframe
from parframe import load_plan
from parframe.cli import source
from parframe.errors import KINDS
from parframe.json_input import read_json

SECTIONS = (
    "Model", "Mesh", "Split", "Stages", "Communication", "Memory per device",
    "Replicated or gathered", "Check", "Verify",
)  # fmt: skip

QUICKSTART = Path(__file__).parents[2] / "specs" / "quickstart.toml"


@pytest.fixture
def spec(tmp_path):
    return write_spec(tmp_path)


def test_apply_writes_a_checked_and_proved_plan(call, spec):
    result = call("apply", spec)
    assert result.code == 0, result.err
    assert result.err == ""
    folder = spec.parent / "out"
    assert sorted(contents(folder)) == ["plan.json", "programs/stage0.py", "report.json"]
    assert load_plan(folder).mesh.size == 2
    assert result.out.rstrip().endswith(f"written to {folder}")


def test_the_report_has_every_section_within_80_columns(call, spec):
    lines = call("apply", spec, "--output", spec.parent / "o").out.splitlines()
    starts = [line for line in lines if line and not line.startswith(" ")]
    assert [section for section, line in zip(SECTIONS, starts, strict=True)
            if not line.startswith(section)] == []  # fmt: skip
    assert max(map(len, lines[3:-1])) <= 80


def test_json_has_the_same_facts_as_the_report_in_the_plan_folder(call, spec):
    result = call("apply", spec, "--json")
    written = read_json(spec.parent / "out" / "report.json", "plan")
    assert {**written, "written": result.json["written"]} == result.json
    assert result.json["verify"]["ok"]
    assert result.json["split"][0]["each"] == {"ffn": ["5"]}
    assert result.json["communication"] == [
        {"axes": ["tp"], "kind": "all_reduce", "count": 1, "bytes": 2 * 2 * 6},
    ]


def test_planning_twice_writes_the_same_bytes(call, spec):
    call("apply", spec)
    first = contents(spec.parent / "out")
    assert call("apply", spec).code == 0
    assert contents(spec.parent / "out") == first


def test_without_output_nothing_is_written_and_that_is_said(call, tmp_path):
    result = call("apply", write_spec(tmp_path, 'parallel = "TP2"\n'))
    assert result.code == 0
    assert result.out.rstrip().endswith("not written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.json", "spec.toml"]


def test_options_come_before_what_the_spec_says(call, spec):
    result = call(
        "apply", spec, "--parallel", "DP3TP2", "--output", spec.parent / "a" / "b",
        "--budget", "1GB", "--batch", 6, "--dtype", "float32", "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["mesh"]["axes"] == {"dp": 3, "tp": 2}
    assert result.json["memory"]["budget"] == 10**9
    assert result.json["check"]["sizes"] == {"batch": 6}
    assert result.json["check"]["dtype"] == "float32"
    assert load_plan(spec.parent / "a" / "b").mesh.size == 6


def test_a_plan_that_is_not_executed_says_so_plainly(call, spec):
    result = call("apply", spec, "--no-execute")
    assert result.code == 0
    assert "Verify  not verified by execution (--no-execute, or execute = false" in result.out
    assert call("apply", spec, "--no-execute", "--json").json["verify"]["executed"] is False


def test_a_spec_may_forgo_execution(call, tmp_path):
    spec = write_spec(tmp_path, 'parallel = "TP2"\n[verify]\nexecute = false\n')
    assert "not verified by execution" in call("apply", spec).out
    assert "2 devices executed" in call("apply", spec, "--execute").out


def test_a_model_too_large_to_execute_is_never_silently_unproved(call, spec, monkeypatch):
    monkeypatch.setattr(source, "_memory", lambda: 1000)
    result = call("apply", spec)
    assert result.code == KINDS["run"][0]
    assert "needs 1.97 KiB in float64, this machine has 1000 B" in result.err
    assert "--no-execute" in result.err
    assert not (spec.parent / "out").exists()
    assert call("apply", spec, "--no-execute").code == 0


def test_a_plan_over_budget_is_not_written(call, spec):
    assert call("apply", spec).code == 0
    before = contents(spec.parent / "out")
    result = call("apply", spec, "--budget", "10B")
    assert result.code == KINDS["memory"][0]
    assert "Check  failed" in result.out
    assert "not verified by execution (the plan failed its checks)" in result.out
    assert result.out.rstrip().endswith("not written")
    assert contents(spec.parent / "out") == before


def test_a_plan_that_fails_its_checks_is_not_written(call, spec, monkeypatch):
    wrong = handwritten.changed(
        handwritten.tensor_parallel(2), "all", "down@sum", args={"reduction": "max"}
    )
    monkeypatch.setattr(parframe, "partition", lambda graph, by: wrong, raising=False)
    result = call("apply", spec)
    assert result.code == KINDS["check"][0]
    assert not (spec.parent / "out").exists()


def test_a_plan_that_computes_something_else_is_not_written(call, spec, monkeypatch):
    prove = parframe.verify

    def failing(plan, **options):
        return attrs.evolve(prove(plan, **options), ok=False, max_error=0.5)

    monkeypatch.setattr(parframe, "verify", failing, raising=False)
    result = call("apply", spec)
    assert result.code == KINDS["verify"][0]
    assert "NOT equal to the model" in result.out
    assert "relative error 0.5, allowed 1e-11" in result.err
    assert not (spec.parent / "out").exists()


def test_an_output_that_holds_something_else_is_refused_before_the_work(call, spec, monkeypatch):
    monkeypatch.setattr(parframe, "load", None, raising=False)
    (spec.parent / "out").mkdir()
    (spec.parent / "out" / "thesis.txt").write_text("mine")
    result = call("apply", spec)
    assert result.code == KINDS["output"][0]
    assert "contains 'thesis.txt'" in result.err
    assert contents(spec.parent / "out") == {"thesis.txt": b"mine"}


def test_an_output_below_a_file_is_refused(call, spec):
    result = call("apply", spec, "--output", spec / "out")
    assert result.code == KINDS["output"][0]


def test_folders_above_the_output_go_again_if_writing_fails(call, spec, monkeypatch):
    def fail(plan, folder, report):
        raise parframe.ParframeError("output", str(folder), "no space left", "free some")

    monkeypatch.setattr("parframe.cli.writing.save_plan", fail)
    assert call("apply", spec, "--output", spec.parent / "a" / "b").code == KINDS["output"][0]
    assert not (spec.parent / "a").exists()


def test_a_mistake_in_the_spec_is_reported_before_the_model_is_loaded(call, spec, monkeypatch):
    monkeypatch.setattr(parframe, "load", None, raising=False)
    result = call("apply", spec, "--parallel", "XP2")
    assert result.code == KINDS["strategy"][0]


@pytest.mark.slow
def test_the_demo_makes_its_model_on_the_spot_and_says_so(call, tmp_path):
    result = call("apply", QUICKSTART, "--output", tmp_path / "out")
    assert result.code == 0, result.err
    assert "demo model, built from its configuration" in result.out
    assert "8 devices executed, equal to the unpartitioned model" in result.out


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(QUICKSTART.parent.glob("*.toml")), ids=lambda p: p.stem)
def test_every_spec_of_the_repository_is_planned_and_proved(call, tmp_path, path):
    result = call("apply", path, "--output", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    assert result.json["check"]["ok"]
    assert result.json["verify"]["ok"]
    assert result.json["verify"]["max_error"] < 1e-11


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path):
    for seed in ("1", "2"):
        command = [sys.executable, "-m", "parframe.cli", "apply", str(QUICKSTART)]
        subprocess.run(
            [*command, "--output", str(tmp_path / seed)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
