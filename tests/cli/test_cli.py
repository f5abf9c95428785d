import json
import os
import subprocess
import sys
import time
from importlib import import_module

import handwritten
import pytest
from command import write_spec

import parframe
from parframe.cli import COMMANDS, group
from parframe.cli.failures import INTERRUPTED
from parframe.errors import KINDS


@pytest.fixture
def plan(tmp_path):
    folder = tmp_path / "plan"
    handwritten.tensor_parallel(2, data=2).save(folder)
    return folder


def test_help_comes_within_300_milliseconds():
    def seconds():
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "parframe.cli", "--help"], check=True, capture_output=True
        )
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_help_imports_nothing_heavy():
    code = """
import sys
from parframe.cli import group
from parframe.cli.failures import run
run(group, ["--help"])
print(sorted({"torch", "transformers", "sympy", "networkx", "numpy", "rich"} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[]"


def test_plans_are_shown_and_checked_without_torch(plan):
    code = f"""
import sys
from parframe.cli import group
from parframe.cli.failures import run
codes = [run(group, [command, {str(plan)!r}]) for command in ("show", "check")]
print(codes, sorted({{"torch", "transformers"}} & set(sys.modules)))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "[0, 0] []"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(call, arguments):
    result = call(*arguments)
    assert result.code == 0
    assert all(f"  {name} " in result.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_a_command_says_of_itself(name):
    command = import_module(f"parframe.cli.{name}").command
    assert command.name == name
    assert command.help.splitlines()[0] == COMMANDS[name]
    assert {"--json", "--debug"} <= {option for p in command.params for option in p.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(call, name):
    assert call(name, "--help").code == 0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("aply",), "no command 'aply' (did you mean 'apply'?)"),
        (("zzz",), "no command 'zzz'; see parframe --help"),
        (("show", "plan", "--devise", "1"), "no option '--devise' (did you mean '--device'?)"),
        (("--vresion",), "(did you mean '--version'?)"),
        (("apply",), "missing argument 'SPEC'"),
        (("apply", "a", "b"), "unexpected extra argument"),
        (("show", "plan", "--device", "x"), "'x' is not a valid integer"),
        (("check", "plan", "--budget", "80XB"), "is '80XB'; give an amount such as '80GB'"),
        (("check", "plan", "--batch", "0"), "0 is not in the range"),
        (("check", "plan", "--dtype", "float3"), "'float3' is not one of"),
    ],
)
def test_a_wrong_command_line_is_one_line_with_a_hint(call, arguments, what):
    result = call(*arguments)
    assert result.code == KINDS["usage"][0]
    assert result.err.startswith("error[usage] parframe")
    assert result.err.count("\n") == 1
    assert what in result.err
    assert "--help" in result.err
    assert result.out == ""


def test_an_unexpected_fault_is_one_line_that_says_how_to_report_it(call, monkeypatch, plan):
    def fail(path):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(parframe, "load_plan", fail, raising=False)
    result = call("show", plan)
    assert result.code == KINDS["internal"][0]
    assert result.err.startswith("error[internal] ")
    assert "RuntimeError: first line; " in result.err
    assert "report this bug in parframe with the output of --debug" in result.err
    assert result.err.count("\n") == 1
    assert "Traceback" in call("show", plan, "--debug").err


def test_a_user_who_stops_a_command_gets_a_line_and_no_traceback(call, monkeypatch, plan):
    def stop(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(parframe, "load_plan", stop, raising=False)
    result = call("show", plan)
    assert (result.code, result.err) == (INTERRUPTED, "\ninterrupted\n")


def test_memory_that_runs_out_is_no_fault_of_parframe(call, monkeypatch, plan):
    def fail(path):
        raise MemoryError

    monkeypatch.setattr(parframe, "load_plan", fail, raising=False)
    assert call("show", plan).err.startswith("error[run] this machine: out of memory; ")


def test_output_that_nobody_reads_to_the_end_is_no_fault(plan):
    command = f"{sys.executable} -m parframe.cli show --device 0 --json {plan} | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stderr == ""


def test_debug_shows_the_traceback_of_an_error(call, tmp_path):
    assert "Traceback" not in call("show", tmp_path / "none").err
    result = call("show", tmp_path / "none", "--debug")
    assert "Traceback" in result.err
    assert "error[plan]" in result.err.splitlines()[-1]


def test_json_is_one_object_and_an_error_is_one_too(call, plan, tmp_path):
    graph = write_spec(tmp_path).with_name("graph.json")
    for arguments in (
        ("plugins",), ("load", graph), ("dims", graph), ("show", plan), ("check", plan),
        ("show", plan, "--device", 3), ("show", plan, "--mesh"), ("verify", plan),
    ):  # fmt: skip
        result = call(*arguments, "--json")
        assert result.code == 0, result.err
        assert isinstance(result.json, dict)
        assert result.out.count("\n") == 1
    result = call("show", tmp_path / "none", "--json")
    assert result.json["error"]["kind"] == "plan"
    assert result.json["error"]["exit_code"] == result.code
    assert result.err.startswith("error[plan]")


def test_what_a_library_prints_does_not_disturb_the_json(call, monkeypatch, plan):
    read = parframe.load_plan

    def chatty(path):
        print("hello")
        return read(path)

    monkeypatch.setattr(parframe, "load_plan", chatty, raising=False)
    result = call("show", plan, "--json")
    assert result.json["mesh"]["devices"] == 4
    assert result.err == "hello\n"


def test_a_terminal_cannot_be_steered_by_what_was_given(call, tmp_path):
    result = call("show", tmp_path / "\x1b[31mred")
    assert "\x1b" not in result.err
    assert "?[31mred" in result.err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full disk here")
def test_an_answer_that_does_not_fit_the_disk_is_an_error(plan):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "parframe", "show", plan], stdout=full, stderr=subprocess.PIPE,
            check=False, text=True,
        )  # fmt: skip
    assert result.returncode == KINDS["output"][0]
    assert result.stderr.startswith("error[output] standard output: cannot be written (No space")
    assert result.stderr.count("\n") == 1


def test_the_version_is_printed(call):
    assert call("--version").out == "parframe 0.1.0\n"


def test_plugins_are_listed_without_importing_them():
    code = """
import sys
from parframe.cli import group
from parframe.cli.failures import run
run(group, ["plugins"])
print([name for name in sys.modules if name.startswith("parframe_")])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert "TP    parframe" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_load_writes_a_graph_that_loads_again(call, tmp_path):
    graph = write_spec(tmp_path).with_name("graph.json")
    result = call("load", graph, "-o", tmp_path / "again.json")
    assert result.code == 0
    assert f"written to {tmp_path / 'again.json'}" in result.out
    assert (tmp_path / "again.json").read_bytes() == graph.read_bytes()


def test_load_says_that_nothing_is_written_without_output(call, tmp_path):
    graph = write_spec(tmp_path).with_name("graph.json")
    assert "not written: give -o graph.json" in call("load", graph).out


def test_dims_tells_name_role_size_and_where_each_occurs(call, tmp_path):
    graph = write_spec(tmp_path).with_name("graph.json")
    found = {row["name"]: row for row in call("dims", graph, "--json").json["dimensions"]}
    assert found["ffn"]["role"] == "ffn"
    assert found["ffn"]["size"] == "10"
    assert sorted(found["ffn"]["occurs"]) == ["down.weight[1]", "up.weight[0]"]
    assert "down.weight[1]" in call("dims", graph).out


def test_dims_takes_the_model_that_a_spec_names(call, tmp_path):
    spec = write_spec(tmp_path)
    assert call("dims", spec).out == call("dims", spec.with_name("graph.json")).out


def test_show_tells_mesh_stages_and_what_is_replicated(call, plan):
    out = call("show", plan).out
    assert "dp=2, tp=2: 4 devices" in out
    assert "ffn    tp" in out
    assert "Stages  1 stage" in out


def test_show_mesh_draws_the_rank_grid_alone(call, plan):
    out = call("show", plan, "--mesh").out
    assert "  dp  ranks along tp\n  0   0 1\n  1   2 3\n" in out
    assert "Stages" not in out


def test_show_device_lists_operators_with_the_ranks_they_talk_to(call, plan):
    out = call("show", plan, "--device", 3).out
    assert "Device 3  dp=1 tp=1, stage 0" in out
    assert "all_reduce" in out
    assert "tp: 2-3" in out
    found = call("show", plan, "--device", 3, "--json").json
    (reduce,) = [op for op in found["operators"] if op["target"] == "parframe.all_reduce"]
    assert reduce["group"] == [2, 3]
    assert found["parameters"][0]["region"] == "[5:10, :]"


def test_show_device_names_the_peer_of_a_send(call, tmp_path):
    handwritten.pipeline().save(tmp_path / "plan")
    assert "pp: to 1" in call("show", tmp_path / "plan", "--device", 0).out
    assert "pp: from 0" in call("show", tmp_path / "plan", "--device", 1).out


def test_an_unknown_rank_is_an_error_with_a_hint(call, plan):
    result = call("show", plan, "--device", 4)
    assert result.code == KINDS["mesh"][0]
    assert "give a rank from 0 to 3" in result.err


def test_check_tells_communication_and_memory(call, plan):
    result = call("check", plan, "--batch", 4, "--dtype", "float32")
    assert result.code == 0
    assert "Check  passed" in result.out
    assert "in float32" in result.out
    assert "all_reduce" in result.out


def test_check_of_a_wrong_plan_fails_with_its_findings(call, tmp_path):
    wrong = handwritten.changed(
        handwritten.tensor_parallel(2), "all", "down@sum", args={"reduction": "max"}
    )
    wrong.save(tmp_path / "plan")
    result = call("check", tmp_path / "plan", "--json")
    assert result.code == KINDS["check"][0]
    assert not result.json["check"]["ok"]
    assert result.json["check"]["findings"]
    assert result.err.startswith("error[check] ")
    assert result.err.count("\n") == 1


def test_check_of_a_plan_over_budget_is_an_error_of_memory(call, plan):
    result = call("check", plan, "--budget", "100B")
    assert result.code == KINDS["memory"][0]
    assert result.err.startswith("error[memory] ")


def test_verify_tells_the_error_and_what_was_communicated(call, plan):
    result = call("verify", plan, "--seed", 3)
    assert result.code == 0
    assert "4 devices executed, equal to the unpartitioned model" in result.out
    assert "random, seed 3" in result.out
    assert call("verify", plan, "--json").json["verify"]["max_error"] < 1e-11


def test_verify_of_a_wrong_plan_names_the_first_operator_that_differs(call, tmp_path):
    wrong = handwritten.changed(
        handwritten.tensor_parallel(2), "all", "down@sum", args={"reduction": "max"}
    )
    wrong.save(tmp_path / "plan")
    result = call("verify", tmp_path / "plan")
    assert result.code == KINDS["verify"][0]
    assert "NOT equal to the model" in result.out
    assert "first difference: down@sum (model.down)" in result.out
    assert "first at down@sum (model.down)" in result.err


@pytest.mark.parametrize(
    "arguments",
    [("show",), ("show", "--device", "0"), ("check",), ("check", "--budget", "100B"), ("verify",)],
    ids=" ".join,
)
def test_tables_fit_80_columns(call, plan, arguments):
    command, *options = arguments
    out = call(command, plan, *options).out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_the_group_knows_every_module_of_commands():
    assert group.list_commands(None) == list(COMMANDS)
    assert json.dumps(COMMANDS)
