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
