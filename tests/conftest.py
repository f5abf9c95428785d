import sys
from pathlib import Path

import pytest
from command import Caller

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks; last: the installed package is tested


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    """Calls commands of the command line."""
    return Caller(capsys)


@pytest.fixture(autouse=True)
def terminal_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give tables 80 columns, as on a terminal of this width."""
    monkeypatch.setenv("COLUMNS", "80")
