"""`parframe fit`: minimum number of GPUs of a model, and sequences that fit there."""

from __future__ import annotations

import subprocess
import sys

import pytest
from command import Caller

from parframe import models
from parframe.hardware import shipped
from parframe.price.choose.minimum_devices import (
    CandidateLayouts,
    candidate_composites,
    find_minimum_devices,
)


@pytest.fixture
def parframe(capsys: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capsys)


def test_the_minimum_number_of_devices_is_found_for_every_dtype(parframe: Caller) -> None:
    called = parframe("fit", "llama-3.1-70b", "--gpu", "H100", "--gpu", "L4", "--json")
    assert called.code == 0, called.err
    fits = {(fit["gpu"], fit["weight_dtype"]): fit for fit in called.json["fits"]}
    assert {fits["H100 SXM", dtype]["devices"] for dtype in ("bf16", "fp8", "int4")} == {4, 2, 1}
    assert fits["L4", "int4"]["devices"] == 4
    assert all(fit["sequences"] > 0 for fit in fits.values())


def test_fewer_sequences_fit_if_they_are_longer() -> None:
    layouts = CandidateLayouts(models.find_model("llama-3.1-8b").graph(), 1)
    device = shipped().machine("H100").device
    short, long = (find_minimum_devices(layouts, device, length, "bf16") for length in (2048, 8192))
    assert short is not None
    assert long is not None
    assert short.sequences // 4 - 1 <= long.sequences <= short.sequences // 4


def test_a_model_that_does_not_fit_is_shown_as_no(parframe: Caller) -> None:
    called = parframe(
        "fit", "llama-3.1-405b", "--gpu", "T4", "--dtypes", "bf16", "--max-devices", "4"
    )
    assert called.code == 0
    assert "no" in called.out.split()


def test_candidate_composites_use_all_devices() -> None:
    import math
    import re

    for count in (2, 4, 8, 16, 64):
        for composite in candidate_composites(count):
            assert math.prod(map(int, re.findall(r"\d+", composite))) == count


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("llama-3.1-9b",), "Llama 3.1 8B"),
        (("llama-3.1-8b", "--gpu", "H101"), "parframe devices"),
        (("llama-3.1-8b", "--dtypes", "fp9"), "fp8"),
        (("llama-3.1-8b", "--engine", "vlm"), "vllm"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(
    parframe: Caller, arguments: tuple[str, ...], meant: str
) -> None:
    called = parframe("fit", *arguments)
    assert called.code not in (0, 3)
    assert meant in called.err


def test_fit_needs_no_torch() -> None:
    code = (
        "import sys\nfrom parframe.cli import group\nfrom parframe.cli.failures import run\n"
        "run(group, ['fit', 'llama-3.1-8b', '--gpu', 'H100', '--max-devices', '2'])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert result.returncode == 0
