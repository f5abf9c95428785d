"""Texts use the words of the field: see the glossary, and `tests/support/language.py`."""

import language
import pytest

PLACES = [language.ROOT / place for place in (*language.PLACES, "tests", "benchmarks")]
FILES = [
    p
    for p in language.files(PLACES)
    if p.name not in ("language.py", "test_language.py", "renames.toml")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(language.ROOT)))
def test_texts_avoid_words_that_readers_do_not_know(path):
    found = [f"{path.name}:{line}: {what}" for path, line, what in language.findings([path])]
    assert found == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("an exchange of tokens", "exchange"),
        ("members_of_a_group", "members"),
        ("it tells of the cache", "tells of"),
        ("figures hang on it", "hang on"),
        ("there are none", "there are none"),
    ],
)
def test_the_list_finds_a_word_in_prose_and_in_names(text, word):
    assert [what.split("'")[1] for _, what in language.words(text)] == [word]


def test_held_out_rows_may_be_called_so():
    assert list(language.words("held-out rows, and held_out_log_std")) == []


def test_docstrings_that_begin_with_a_question_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text('def count():\n    """How many there may be."""\n')
    assert [line for _, line, _ in language.findings([path])] == [2]
