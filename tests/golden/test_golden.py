"""Commands, plans and rank modules compute what they did when the golden files were written."""

from functools import cache

import pytest

from . import facts, modules, plans
from .compare import FOLDER, Names, assert_same, differences, read

NAMES = Names.read()
COMMANDS = dict(facts.cases())


@cache
def facts_of(name):
    return facts.facts(COMMANDS[name], NAMES)


@cache
def plan_of(name):
    return plans.facts(name, NAMES)


@cache
def code_of(name):
    return modules.code(name, NAMES)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_gives_the_facts_it_gave(name):
    assert_same(read(FOLDER / "facts" / f"{name}.json"), facts_of(name))


@pytest.mark.parametrize("name", plans.CASES)
def test_a_plan_is_what_it_was(name):
    assert_same(read(FOLDER / "plans.json")[name], plan_of(name))


@pytest.mark.parametrize("name", modules.CASES)
def test_the_code_of_a_rank_is_what_it_was(name):
    golden = (FOLDER / "modules" / f"{name}.txt").read_text(encoding="utf-8")
    lines = ["", *golden.splitlines()], ["", *code_of(name).splitlines()]
    assert_same(*({f"line {n}": text for n, text in enumerate(side)} for side in lines))


def test_there_is_no_golden_file_without_a_case():
    assert {path.stem for path in FOLDER.glob("facts/*")} == COMMANDS.keys()
    assert read(FOLDER / "plans.json").keys() == plans.CASES.keys()
    assert {path.stem for path in FOLDER.glob("modules/*")} == modules.CASES.keys()


def test_every_entry_of_the_renames_is_used():
    every = ((facts_of, COMMANDS), (plan_of, plans.CASES), (code_of, modules.CASES))
    for generate, cases in every:
        for name in cases:
            if NAMES.used == NAMES.table.keys():
                return
            generate(name)
    unused = sorted(NAMES.table.keys() - NAMES.used)
    assert not unused, f"remove from tests/golden/renames.toml: {unused}"


def test_names_are_mapped_back_as_whole_words_and_by_path():
    names = Names({"new": "old", "parframe.late": "parframe.early", "fit/rows/of": "at"})
    assert names.words("new newer parframe.late.default") == "old newer parframe.early.default"
    found = {"rows": [{"of": "new"}], "of": 1, "why": ["in words"], "result": {"a b": 2}}
    assert facts.recorded(found, names, ("fit",)) == {
        "rows": [{"at": "old"}], "of": 1, "why": None, "result": [2],
    }  # fmt: skip
    assert names.used == names.table.keys()


def test_differences_name_the_place_and_both_values():
    golden = {"a": [{"b": 1.0}], "c": 1, "e": 0.1 + 0.2}
    found = {"a": [{"b": 1.5}], "d": 2, "e": 0.3}
    assert list(differences(golden, found)) == [
        "a[0].b: golden has 1.0, found 1.5",
        "c: missing, golden has 1",
        "d: new with 2, golden has no such key",
    ]
