"""JSON from outside: what is refused, and how it is named."""

import pytest

from parframe.errors import ParframeError
from parframe.json_input import parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": }', "line 1: not JSON"),
        ("9" * 5000, "nested too deep, or not JSON"),
    ],
)
def test_illegal_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParframeError, match=message) as caught:
        parse_json(text, "plan")
    assert caught.value.kind == "plan"


def test_nan_is_refused_on_request_only() -> None:
    assert parse_json('{"a": Infinity}', "load") == {"a": float("inf")}
    with pytest.raises(ParframeError, match="Infinity is not a number"):
        parse_json('{"a": Infinity}', "graph", allow_nan=False)


def test_a_file_that_is_too_large_is_not_parsed(tmp_path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json", "load", largest=8) == {"a": 1}
    with pytest.raises(ParframeError, match="larger than 7 bytes"):
        read_json(tmp_path / "a.json", "load", largest=7)
