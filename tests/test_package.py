import doctest
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import parframe

MODULES = ["parframe", *(m.name for m in pkgutil.walk_packages(parframe.__path__, "parframe."))]


def run(code: str) -> str:
    """Run code in a Python of its own and give what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_parframe_and_reading_a_spec_import_no_torch() -> None:
    code = """
import sys, parframe
parframe.Spec(parallel="PP2TP2").placing()
print(sorted({"torch", "transformers", "networkx", "sympy"} & set(sys.modules)))
"""
    assert run(code) == "[]"


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "safetensors", "tokenizers")))
import parframe
"""
"""A Python in which imports of the optional packages fail, as where they are not installed."""


@pytest.mark.parametrize(
    ("operation", "extra"),
    [
        ("parframe.verify", "torch"),
        ("parframe.run", "torch"),
        ("parframe.load({'model_type': 'llama'})", "hf"),
        ("parframe.load('model.pt2')", "torch"),
    ],
)
def test_an_operation_without_its_optional_package_names_the_extra(operation: str, extra: str):
    code = f"""{WITHOUT_TORCH}
try:
    {operation}
except parframe.ParframeError as error:
    print(error.kind, error.hint)
"""
    assert run(code) == f"install run pip install 'parframe[{extra}]'"


def test_a_command_without_its_optional_package_names_the_extra(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    code = f"""{WITHOUT_TORCH}
from parframe.cli import group
from parframe.cli.failures import run
print(run(group, ["load", {str(tmp_path)!r}, "--json"]))
"""
    assert '"hint": "run pip install \'parframe[hf]\'"' in run(code)
    assert run(code).endswith("4")


def test_plans_are_made_checked_and_priced_without_torch():
    code = f"""{WITHOUT_TORCH}
from parframe.cli import group
from parframe.cli.failures import run
from parframe.models import find_model
plan = parframe.partition(find_model("llama-3.2-1b").graph(), "PP2TP2")
code = run(group, ["choose", "llama-3.2-1b", "--devices", "2xH100", "--json"])
print(parframe.check(plan).ok, code)
"""
    assert run(code).endswith("True 0")


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        parframe.lode  # noqa: B018


@pytest.mark.parametrize("name", parframe.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert name in dir(parframe)
    assert getattr(parframe, name).__doc__


def test_a_public_function_is_no_module_whatever_was_imported_before() -> None:
    modules = [name for name in MODULES if not name.endswith("__main__")]
    code = f"""
import importlib, parframe
for name in {modules!r}: importlib.import_module(name)
print([name for name in parframe.__all__ if not callable(getattr(parframe, name))])
"""
    assert run(code) == "[]"


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_in_docstrings_run(name: str) -> None:
    assert doctest.testmod(import_module(name)).failed == 0
