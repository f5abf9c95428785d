"""Tables of serving figures at 80 columns, at 200 columns, and in output that is not a terminal."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
from command import Caller

COMMANDS = {
    "choose": ("choose", "mixtral-8x7b", "--devices", "16xH100"),
    "choose-violations": ("choose", "llama-3-70b", "--devices", "8xL4", "--max-tpot", "1"),
    "choose-excluded": ("choose", "llama-3.1-405b", "--devices", "8xH100"),
    "estimate": ("estimate", "SPEC", "--devices", "2xH100", "--engine", "vLLM"),
    "fit": ("fit", "llama-3.1-8b", "mixtral-8x7b", "deepseek-v3", "--gpu", "H100", "--gpu", "L4"),
    "fit-dtypes": ("fit", "llama-3.1-8b", "mixtral-8x7b", "--gpu", "B200", "--dtypes",
                   "fp32,bf16,fp16,fp8,int8,int4,fp4"),
    "predict": ("predict", "ROWS", "-o", "OUT"),
}  # fmt: skip

ROWS = (
    ("Llama-3.1-8B", "H100", "tpot"),
    ("Llama-3.1-405B", "H100", "tpot"),
    ("Nonesuch-7B", "H100", "tpot"),
    ("Llama-3.1-8B", "Voodoo 2", "tpot"),
    ("Llama-3.1-8B", "H100", "joy"),
)

UNIT = re.compile(r"\d (B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)\b")
WIDTHS = ("80", "200", "")
"""Values of COLUMNS; empty for none, as where output is piped."""


class Outputs:
    """Output of each command at each width, computed once."""

    def __init__(self) -> None:
        self.texts: dict[tuple[str, str], str] = {}


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    return Outputs()


@pytest.fixture
def output(outputs: Outputs, call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return the output of a command at a width."""

    def text(name: str, width: str) -> str:
        if (name, width) not in outputs.texts:
            if width:
                monkeypatch.setenv("COLUMNS", width)
            else:
                monkeypatch.delenv("COLUMNS", raising=False)
            paths = {"SPEC": "spec.toml", "ROWS": "rows.csv", "OUT": "out.csv"}
            (tmp_path / "spec.toml").write_text('model = "mistral-7b"\nparallel = "TP2"\n')
            with (tmp_path / "rows.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("model", "gpu", "metric"), *ROWS])
            monkeypatch.chdir(tmp_path)
            found = call(*(paths.get(word, word) for word in COMMANDS[name]))
            assert found.code == 0 or name.startswith("choose-"), found.err
            outputs.texts[name, width] = found.out
        return outputs.texts[name, width]

    return text


def words_with_numbers(text: str) -> Counter[str]:
    return Counter(word for word in text.split() if re.search(r"\d", word))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_number_wraps_at_80_columns(output, name):
    narrow = output(name, "80")
    assert max(map(len, narrow.splitlines())) <= 80
    assert words_with_numbers(narrow) - words_with_numbers(output(name, "")) == Counter()


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_shortened_on_a_wide_terminal_or_where_output_is_piped(output, name):
    wide, piped = output(name, "200"), output(name, "")
    assert Counter(wide.split()) == Counter(piped.split())
    assert words_with_numbers(output(name, "80")) <= words_with_numbers(piped)
    assert "…" not in wide + piped
    assert "..." not in wide + piped


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_has_one_unit_and_numbers_that_can_be_read(output, name, width):
    for line in output(name, width).splitlines():
        assert len(set(UNIT.findall(line))) <= 1, line
        assert not re.search(r"\b0\.0+ (?:[KMGT]i?)?B\b", line), line
        assert all(float(share) <= 100 for share in re.findall(r"([\d.]+) ?%", line)), line
