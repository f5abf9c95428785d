import io
import json

import handwritten
import models
import pytest

import parframe
from parframe.checking import DeviceMemory
from parframe.cli.answer import dump, steps
from parframe.mesh import Mesh
from parframe.plan import Note
from parframe.report.communication import draw_traffic, traffic_facts
from parframe.report.formatting import amount, runs, shortened
from parframe.report.memory import draw_memory, memory_facts
from parframe.report.mesh import abridged, draw_mesh, mesh_facts, split_facts
from parframe.report.notes import draw_notes, note_facts
from parframe.report.screen import line, lines, screen, table
from parframe.report.stages import merge_layers, stage_facts
from parframe.report.verdicts import draw_proof, unverified_facts
from parframe.sizes import symbol


def drawn(parts) -> str:
    out = io.StringIO()
    console = screen(out)
    for part in parts:
        console.print(part, crop=False)
    return out.getvalue()


def test_the_ranks_are_shown_as_experts_over_two_axes_see_them():
    spec = parframe.Spec(parallel="DP2TP2", splits={"experts": ("dp", "tp")})
    graph = parframe.load(models.tiny_config("mixtral"))
    plan = parframe.partition(graph, spec)
    text = drawn(draw_mesh(mesh_facts(plan.mesh, plan.placing)))
    assert "dp  ranks along tp" in text
    assert "View  experts over dp x tp" in text
    assert "0      0 1 2 3" in text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10 * 2**20, "10.0 MiB"),
     (554 * 2**20, "554 MiB"), (5000 * 2**50, "5000 PiB")],
)  # fmt: skip
def test_amounts_have_three_digits_and_a_unit(size, text):
    assert amount(size) == text


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([7], "7"), ([0, 1, 2], "0-2"), ([0, 2, 3, 9], "0, 2-3, 9"),
     (range(0, 64, 4), "0, 4, 8, ..., 60")],
)  # fmt: skip
def test_neighbouring_ranks_are_merge_layers(numbers, text):
    assert runs(numbers) == text


@pytest.mark.parametrize("width", range(8, 40))
def test_shortened_text_is_never_wider(width):
    text = "model.layers.17.self_attn.q_proj"
    assert len(shortened(text, width)) <= width
    assert shortened(text, len(text)) == text


def test_a_large_grid_is_abridged_and_says_by_how_much():
    text = drawn(draw_mesh(mesh_facts(Mesh((("pp", 16), ("tp", 8), ("dp", 8))))))
    assert "1,024 devices" not in text.splitlines()[1]
    assert "pp=16, tp=8, dp=8: 1,024 devices" in text
    assert "(113 more rows)" in text
    assert "1016 1017" in text
    assert len(text.splitlines()) < 20


def test_a_short_table_is_not_abridged():
    rows = [["a"], ["b"]]
    assert abridged(rows, 1) == rows
    assert len(abridged([["a"]] * 100, 1)) == 16


def test_a_mesh_of_one_device_has_a_grid_too():
    assert "no axes: 1 device" in drawn(draw_mesh(mesh_facts(Mesh(()))))


def test_uneven_shares_show_both_lengths():
    graph = handwritten.mlp()
    from parframe.dims import name_dimensions

    found = split_facts(parframe.Spec(parallel="TP3").placing(), name_dimensions(graph))
    assert found[0]["each"] == {"ffn": ["4", "3"]}


def test_layers_that_follow_each_other_are_one():
    names = ["embed", "layers.0", "layers.1", "layers.3", "norm", "head"]
    assert merge_layers(names) == ["embed", "layers.0-1", "layers.3", "norm", "head"]


def test_stages_tell_ranks_weights_and_what_goes_on():
    first, last = stage_facts(handwritten.pipeline())
    assert first["ranks"] == [0]
    assert first["holds"] == ["model.up"]
    assert first["moves"] == ["relu"]
    assert last["holds"] == ["model.down", "model.sum"]
    assert last["moves"] == []


def test_devices_that_need_the_same_memory_share_a_row():
    memory = {0: DeviceMemory(4, 2, 1), 1: DeviceMemory(4, 2, 1), 2: DeviceMemory(8, 2, 1)}
    facts = memory_facts(memory, 22)
    assert [row["ranks"] for row in facts["devices"]] == [[0, 1], [2]]
    text = drawn(draw_memory(facts))
    assert "11 B at most, 50% of the budget of 22 B" in text
    assert "0-1" in text


def test_notes_are_grouped_with_their_bytes():
    batch = symbol("batch")
    notes = [Note("gathered", f"layer.{i}", "x", 4 * batch * i) for i in range(6)]
    facts = note_facts(notes, {"batch": 2})
    assert facts[1]["size"] == "4*batch"
    assert facts[1]["bytes"] == 8
    text = drawn(draw_notes(facts))
    assert "6 places" in text
    assert "and 3 more modules" in text
    assert "layer.5" in text
    assert note_facts(notes, {})[1]["bytes"] is None


def test_nothing_replicated_or_gathered_is_said():
    assert "Replicated or gathered  nothing" in drawn(draw_notes([]))


def test_a_plan_that_was_not_executed_is_never_called_proved():
    text = drawn(draw_proof(unverified_facts("too large"), 8))
    assert text == "Verify  not verified by execution (too large)\n"


def test_a_long_path_is_one_line_and_a_long_remark_is_wrapped():
    assert drawn([line("/a" * 100)]).count("\n") == 1
    assert max(map(len, drawn([lines(["word " * 50])]).splitlines())) <= 80


def test_nothing_in_a_table_is_cut_off():
    text = drawn([table(("a", "b"), [["x" * 100, "y" * 100]])])
    assert text.count("x") == 100
    assert text.count("y") == 100
    assert max(map(len, text.splitlines())) <= 80


def test_control_characters_are_shown_and_not_sent():
    assert "\x1b" not in drawn([table(("a\x1b[1m",), [["b\x1b[2J"]]), lines(["\x07"])])


def test_json_has_no_numbers_that_are_none():
    assert dump({"error": float("inf"), "sizes": (1, 2)}) == '{"error": "inf", "sizes": [1, 2]}'
    assert dump({"error": float("nan")}) == '{"error": "nan"}'


def test_facts_are_plain_json():
    plan = handwritten.tensor_parallel(2, data=2)
    report = parframe.check(plan)
    facts = [mesh_facts(plan.mesh), memory_facts(report.memory, 100), stage_facts(plan)]
    assert json.loads(dump({"all": facts}))["all"] == facts


def test_progress_is_shown_on_a_terminal_alone(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stderr, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stderr)
        with steps(2) as step:
            step("loading the model")
            step("checking 64 devices")
        assert ("checking 64 devices" in stderr.getvalue()) is shown


def test_the_report_describes_a_distributed_form():
    plan = parframe.partition(parframe.load(models.tiny_config("mixtral")), "EP2")
    text = drawn(draw_traffic(traffic_facts(parframe.check(plan).traffic), "bytes"))
    assert "expert_dispatch: tokens go to the devices that have their experts" in text


def test_notes_of_the_loader_are_printed_before_what_is_replicated():
    result = "the graph is the model where sequence is 24 at most, and this goes on beyond a line"
    text = drawn(draw_notes(note_facts([Note("remark", "the model", result, 0)], {})))
    assert text.index("Notes") < text.index("Replicated or gathered")
    assert "sequence is 24 at most" in text
    assert max(map(len, text.splitlines())) <= 80
