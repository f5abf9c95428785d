import pytest
from command import Caller


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Caller:
    """Calls commands of the command line."""
    return Caller(capsys)
