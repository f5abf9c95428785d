"""The documentation is true: its examples run, its tables are those of the code."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import documentation
import pytest
from plan_assertions import STORIES, needs_stories

import parframe
from parframe.cli import COMMANDS
from parframe.spec import KEYS

ROOT = Path(__file__).parents[1]

_specification = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
tables = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(tables)

PAGES = [*tables.PAGES, ROOT / "CONTRIBUTING.md"]
MADE = [
    (page, name)
    for page in PAGES
    for name in re.findall(r"<!-- begin ([\w-]+) -->", page.read_text(encoding="utf-8"))
]


def without_noise(text: str) -> str:
    """The text with numbers of rounding errors left out: they differ between machines."""
    return re.sub(r"\d(\.\d+)?e-1\d", "(rounding)", text)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_blocks_of_a_page_run(tmp_path, page):
    shutil.copytree(ROOT / "specs", tmp_path / "specs", ignore=shutil.ignore_patterns("out"))
    script = ROOT / "tests" / "support" / "documentation.py"
    result = subprocess.run(
        [sys.executable, str(script), str(page)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("page", "name"), MADE, ids=lambda value: getattr(value, "stem", value))
def test_a_part_made_from_the_code_has_not_drifted(page, name):
    found = re.search(
        rf"<!-- begin {name} -->\n(.*?)\n<!-- end {name} -->", page.read_text(), re.DOTALL
    )
    assert without_noise(found[1]) == without_noise(tables.TABLES[name]()), (
        "run python docs/tables.py"
    )


def test_the_architecture_lists_every_floor_from_the_ground_up():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = [set(re.findall(r"`(\w+)`", row)) for row in re.findall(r"^\| (`.*?) \|", page, re.M)]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["id"] == "floors")["layers"]
    floors = [set(re.findall(r"\w+", layer)) - {"export", "__main__"} for layer in layers]
    height = {name: floor for floor, names in enumerate(reversed(floors)) for name in names}
    assert set().union(*listed) == set(height)
    order = [max(height[name] for name in names) for names in listed]
    assert order == sorted(order)


def test_every_public_name_is_on_the_page_of_the_public_api():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert [n for n in parframe.__all__ if f"### parframe.{n}\n" not in page] == []


def test_every_table_is_on_some_page():
    assert {name for _, name in MADE} == set(tables.TABLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_readme_shows_the_demo_as_it_is():
    text = (ROOT / "specs" / "quickstart.toml").read_text(encoding="utf-8")
    assert f"# file: specs/quickstart.toml\n{text}" in (ROOT / "README.md").read_text()


@pytest.mark.slow
@needs_stories
def test_readme_shows_the_text_that_a_model_folder_generates():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, shown = re.search(r"\$ parframe (generate path/.*)\n([^`]*)", text).groups()
    arguments = shlex.split(command.replace("path/to/stories260k", str(STORIES)))
    assert tables.printed(arguments) == shown


def test_every_key_command_and_strategy_is_documented():
    spec = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    assert [key for key in KEYS if f"`{key}`" not in spec] == []
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"### {name}" not in commands] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [c for c in parframe.hooks.claimed_codes() if f"`{c}`" not in readme] == []


def test_every_code_block_is_of_a_language_that_is_run():
    languages = {
        language for page in PAGES for language, _ in documentation.blocks(page.read_text("utf-8"))
    }
    assert languages <= {"python", "console", "toml", "text"}
