import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parframe import Spec
from parframe.errors import ParframeError
from parframe.mesh import Mesh
from parframe.spec import KEYS, DemoModel, Verify
from parframe.strategy import Split

FULL = """\
model = "models/tiny"
parallel = "PP2TP4SPDP2"
devices = 16
splits = { ffn = ["dp", "tp"] }
plugins = ["parframe"]
on_missing_rule = "replicate"
output = "out/plan"
dtype = "bfloat16"
batch = 8
sequence = 4096

[strategies.pp]
stage_starts = ["model.layers.3"]

[memory]
budget = "80GB"

[verify]
batch = 4
sequence = 12
seed = 7
"""


def test_a_full_spec_says_all_it_says(tmp_path: Path) -> None:
    spec = Spec.parse(FULL, tmp_path)
    assert spec == Spec(
        model=tmp_path.resolve() / "models/tiny",
        parallel="PP2TP4SPDP2",
        devices=16,
        splits={"ffn": ("dp", "tp")},
        plugins=("parframe",),
        on_missing_rule="replicate",
        output=tmp_path.resolve() / "out/plan",
        dtype="bfloat16",
        batch=8,
        sequence=4096,
        strategies={"pp": {"stage_starts": ["model.layers.3"]}},
        memory_budget=80 * 10**9,
        verify=Verify(batch=4, sequence=12, seed=7),
    )
    placing = spec.placing()
    assert placing.mesh == Mesh((("pp", 2), ("tp", 4), ("dp", 2)))
    assert placing.stage_starts == ("model.layers.3",)
    assert placing.axes("ffn") == ("dp", "tp")
    assert placing.axes("sequence") == ("tp",)


def test_a_demo_model_holds_its_configuration() -> None:
    text = '[model]\nkind = "demo"\n[model.config]\nmodel_type = "llama"\nhidden_size = 8\n'
    assert Spec.parse(text).model == DemoModel({"model_type": "llama", "hidden_size": 8})


def test_a_spec_can_give_mesh_and_splits_without_a_composite() -> None:
    spec = Spec.parse('mesh = { dp = 2, tp = 4 }\nsplits = { ffn = ["dp", "tp"] }\ndevices = 8')
    placing = spec.placing()
    assert placing.mesh == Mesh((("dp", 2), ("tp", 4)))
    assert placing.splits == (Split("ffn", ("dp", "tp"), required=True),)


def test_strategies_with_a_table_take_part_on_a_mesh_without_a_composite() -> None:
    spec = Spec.parse("mesh = { tp = 4 }\n[strategies.tp]\n[strategies.sp]\n")
    names = {"heads", "ffn", "expert_ffn", "vocab", "sequence"}
    assert {split.name for split in spec.placing().splits} == names


def test_an_empty_composite_is_one_device() -> None:
    assert Spec.parse('parallel = ""').placing().mesh.size == 1


def test_a_strategy_can_be_declared_without_python() -> None:
    spec = Spec.parse('parallel = "HP2"\n[strategies.hp]\nsplits = ["heads"]\naxis = "h"')
    assert spec.placing().mesh == Mesh((("h", 2),))
    assert spec.placing().splits == (Split("heads", ("h",)),)


def test_a_spec_can_change_what_an_installed_strategy_splits() -> None:
    spec = Spec.parse('parallel = "TP2"\n[strategies.tp]\nsplits = ["ffn"]')
    assert spec.placing().splits == (Split("ffn", ("tp",)),)


@pytest.mark.parametrize(
    ("text", "count"),
    [('"80GB"', 80 * 10**9), ('"1.5 GiB"', 3 * 2**29), ('"64MiB"', 2**26), ("1024", 1024)],
)
def test_a_budget_is_bytes_or_an_amount_with_a_unit(text: str, count: int) -> None:
    assert Spec.parse(f"[memory]\nbudget = {text}").memory_budget == count


@pytest.mark.parametrize(
    ("text", "line", "key", "message"),
    [
        ('\nparalel = "TP2"', 2, "paralel", "did you mean 'parallel'?"),
        ("[memory]\nbudgt = 1", 2, "memory.budgt", "did you mean 'budget'?"),
        ("[verify]\nseeds = 1", 2, "verify.seeds", "did you mean 'seed'?"),
        ("verify = { seeds = 1 }", 1, "verify.seeds", "did you mean 'seed'?"),
        ('"a.b" = 1', 1, "a.b", "unknown key"),
        ('"*" = 1', 1, "*", "unknown key"),
        ('parallel = ["TP2"]', 1, "parallel", "is a list of 1; give a composite"),
        ("devices = true", 1, "devices", "is true; give a whole number"),
        ("devices = 2.0", 1, "devices", "is 2.0; give a whole number"),
        ('devices = "2"', 1, "devices", "is '2'; give a whole number"),
        ("devices = 0", 1, "devices", "is 0"),
        ("devices = -4", 1, "devices", "is -4"),
        ("batch = 99999999999999999999", 1, "batch", "is 99999999999999999999"),
        ("batch = 1979-05-27", 1, "batch", "is 1979-05-27"),
        ("mesh = { dp = 2, tp = 0 }", 1, "mesh.tp", "is 0"),
        ("[mesh]\ndp = 2\ntp = true", 3, "mesh.tp", "is true"),
        ("mesh = 4", 1, "mesh", "give a table: [mesh]"),
        ('splits = ["tp"]', 1, "splits", "give a table: [splits]"),
        ('[splits]\nffn = "tp"', 2, "splits.ffn", "is 'tp'; give a list of mesh axes"),
        ("[splits]\nffn = [1]", 2, "splits.ffn", "is a list of 1"),
        ("strategies.tp = 3", 1, "strategies.tp", "is 3; give a table"),
        ('on_missing_rule = "ignore"', 1, "on_missing_rule", 'give "error" or "replicate"'),
        ('dtype = "int8"', 1, "dtype", "is 'int8'; give one of float64"),
        ('[memory]\nbudget = "80 XB"', 2, "memory.budget", "is '80 XB'; give an amount"),
        ('[memory]\nbudget = "0GB"', 2, "memory.budget", "is 0"),
        ("[verify]\nseed = -1", 2, "verify.seed", "is -1"),
        ("[verify]\nexecute = 1", 2, "verify.execute", "is 1"),
        ('[model]\nkind = "real"', 2, "model.kind", 'give "demo"'),
        ('[model]\nkind = "demo"', 1, "model", "has no 'config'"),
        ('[model]\nkind = "demo"\nconfig = {}', 3, "model.config", "has no model_type"),
        ("model = 3", 1, "model", "is 3; give a relative path"),
        ('model = ""', 1, "model", "is ''"),
        ('model = "../other"', 1, "model", "leaves the folder of the spec"),
        ('model = "a/../../other"', 1, "model", "leaves the folder of the spec"),
        ('model = "/etc/passwd"', 1, "model", "not relative to the folder"),
        ('model = "~/model"', 1, "model", "not relative to the folder"),
        ('model = "a\\u0000b"', 1, "model", "is 'a\\x00b'"),
        ('output = "../plan"', 1, "output", "leaves the folder of the spec"),
        ('output = "."', 1, "output", "leaves the folder of the spec"),
        ('model = "a/b"\noutput = "a"', 2, "output", "holds the model"),
        ('model = "os:system"', 1, "model", "names code to be imported"),
        ('output = "!!python/object"', 1, "output", "names code to be imported"),
        ('parallel = "pkg.module:Strategy"', 1, "parallel", "names code to be imported"),
        (
            '[strategies.xp]\nsplits = ["a.b:c"]',
            2,
            "strategies.xp.splits",
            "names code to be imported",
        ),
        (
            '[model]\nkind = "demo"\n[model.config]\nmodel_type = "x"\nauto_map = "y.Z"',
            5,
            "model.config.auto_map",
            "asks to run code",
        ),
        ('parallel = "TP2"\nmesh = { tp = 2 }', 2, "mesh", "keep one of them"),
    ],
)
def test_a_mistake_is_reported_with_line_and_key(
    text: str, line: int, key: str, message: str
) -> None:
    with pytest.raises(ParframeError) as caught:
        Spec.parse(text, name="a.toml")
    assert str(caught.value).startswith(f"error[spec] a.toml line {line}, key {key!r}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "text", "line", "key", "message"),
    [
        ("composite", 'devices = 2\nparallel = "TP0"', 2, "parallel", "\n      ^\n  grammar: "),
        ("composite", 'parallel = "TP9999999"', 1, "parallel", "larger than"),
        (
            "mesh",
            'parallel = "TP2"\ndevices = 3',
            2,
            "devices",
            "set it to 2, or use another composite",
        ),
        ("mesh", "[mesh]\nTP = 2", 1, "mesh", "axis 'TP': not a legal name"),
        ("mesh", 'parallel = "DP1000TP1001"', 1, "parallel", "use at most 65536"),
        ("strategy", 'parallel = "ZP2"', 1, "parallel", "no strategy has the code 'ZP'"),
        ("strategy", 'parallel = "DTP2"', 1, "parallel", "did you mean 'TP'?"),
        ("strategy", 'parallel = "TP2SP2"', 1, "parallel", "write TP2SP"),
        ("strategy", 'parallel = "DP2SP"', 1, "parallel", "as in SP2"),
        (
            "strategy",
            'parallel = "TP2"\n[splits]\nffn = ["dp"]',
            3,
            "splits.ffn",
            "no axis 'dp'",
        ),
        (
            "strategy",
            'parallel = "TP2"\n[strategies.pp]\nstage_starts = [1]',
            2,
            "strategies.pp",
            "takes no part in 'TP2'",
        ),
        (
            "strategy",
            'parallel = "PP2"\n[strategies.pp]\nstage_start = [1]',
            3,
            "strategies.pp.stage_start",
            "did you mean 'stage_starts'?",
        ),
        (
            "strategy",
            'parallel = "PP2"\n[strategies.pp]\nstage_starts = [true]',
            3,
            "strategies.pp.stage_starts",
            "give a list of: text or a whole number",
        ),
        (
            "strategy",
            'parallel = "PP2"\n[strategies.pp]\nstage_starts = 1',
            3,
            "strategies.pp.stage_starts",
            "is 1",
        ),
        (
            "strategy",
            'parallel = "HP2"\n[strategies.hp]\nsplits = "heads"',
            3,
            "strategies.hp.splits",
            "give a list of names",
        ),
        (
            "strategy",
            'parallel = "HP2"\n[strategies.hp]\nsplits = ["heads"]\naxis = "H"',
            4,
            "strategies.hp.axis",
            "give a to z",
        ),
        (
            "strategy",
            'parallel = "HP2"\n[strategies.hp]\naxis = "h"',
            2,
            "strategies.hp",
            "or declare it",
        ),
        (
            "strategy",
            'parallel = "TP2"\n[strategies.x]\nsplits = ["heads"]',
            2,
            "strategies.x",
            "cannot be the code",
        ),
        (
            "strategy",
            'parallel = "TP2"\n[strategies.tp]\n[strategies.x]\ncode = "TP"',
            3,
            "strategies.x",
            "strategies.tp has the same code",
        ),
    ],
)
def test_a_placing_that_cannot_be_is_reported_with_line_and_key(
    kind: str, text: str, line: int, key: str, message: str
) -> None:
    with pytest.raises(ParframeError) as caught:
        Spec.parse(text, name="a.toml").placing()
    assert str(caught.value).startswith(f"error[{kind}] a.toml line {line}, key {key!r}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.toml: is empty"),
        ("# nothing\n", "a.toml: is empty"),
        ("a = 1\nb = ", "a.toml line 2: is not TOML"),
        ("a = 1\na = 2\n", "a.toml line 2: is not TOML"),
        ('a = "unclosed\n', "a.toml line 1: is not TOML"),
        ("a = '''unclosed [[[\n" + "[" * 100, "a.toml line 2: is not TOML"),
        ("a = " + "9" * 5000, "a.toml: has a value that cannot be read"),
        ("a = " + "[" * 100_000, "a.toml line 1: is nested deeper than 32"),
        ("a = " + "{b = " * 40, "a.toml line 1: is nested deeper than 32"),
        ("a = [\n" + "[\n" * 40, "a.toml line 33: is nested deeper than 32"),
        ("\na" + ".a" * 1000 + " = 1", "a.toml line 2: is nested deeper than 32"),
        ("[a" + " . 'a'" * 1000 + "]", "a.toml line 1: is nested deeper than 32"),
        ("a = {" + "b.b.b.b.b.b.b.b = {" * 8 + "}" * 9, "is nested too deep"),
        ("#" * 300_000, "a.toml: is longer than 256 KiB"),
    ],
)
def test_text_that_is_no_spec_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParframeError) as caught:
        Spec.parse(text, name="a.toml")
    assert str(caught.value).startswith("error[spec] a.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize("quote", ["'{}'", '"{}"', "'''{}'''", '"""{}"""', "1 # {}"])
def test_brackets_in_strings_and_comments_are_not_nesting(quote: str) -> None:
    text = "output = 'x'\nbatch = " + quote.format("[" * 100)
    if quote.startswith("1"):
        assert Spec.parse(text).batch == 1
    else:
        with pytest.raises(ParframeError, match="line 2, key 'batch'"):
            Spec.parse(text)


def test_lines_are_counted_through_values_of_many_lines() -> None:
    text = 'splits.ffn = [ # dp = 1\n "tp",\n]\n\n[verify] # [memory]\nseed = """\nbatch = 1\n"""\n'
    with pytest.raises(ParframeError, match=r"line 6, key 'verify\.seed'"):
        Spec.parse(text)


@given(st.text(alphabet="ab.[]{}=\"'\n#,1 \\", max_size=60))
def test_no_text_makes_the_reader_fail_otherwise(text: str) -> None:
    with suppress(ParframeError):
        Spec.parse(text)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.toml", None, "does not exist"),
        (".", None, "is not a file"),
        ("latin.toml", b"a = '\xe9'", "byte 5 is not UTF-8"),
        ("long.toml", b"#" * 1_000_000, "is longer than 256 KiB"),
        ("empty.toml", b"", "is empty"),
    ],
)
def test_a_file_that_is_no_spec_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ParframeError) as caught:
        Spec.read(path)
    assert str(caught.value).startswith(f"error[spec] {path}: {message}")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "specs"
    folder.mkdir()
    os.symlink(tmp_path, folder / "link")
    with pytest.raises(ParframeError, match="leaves the folder of the spec"):
        Spec.parse('model = "link/model"', folder)


def test_a_spec_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('model = "tiny"\nparallel = "TP2"\n')
    assert Spec.read(path).model == tmp_path.resolve() / "tiny"


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("specs/*.toml")), ids=str)
def test_every_spec_that_is_shipped_can_be_placed(path: Path) -> None:
    assert Spec.read(path).placing().mesh.size > 1


def test_every_key_tells_what_it_expects_and_means() -> None:
    assert all(key.expected and key.meaning for key in KEYS.values())
