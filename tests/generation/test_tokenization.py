import json
import shutil
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_assertions import STORIES, needs_stories
from tiny_tokenizers import LINES, byte_level
from tokenizers import Tokenizer, decoders, models

from parframe.errors import ParframeError
from parframe.generation.text_stream import Detokenizer, StopStrings, TextStream
from parframe.generation.tokenization import ModelTokenizer, read_stop_tokens, read_tokenizer


@cache
def word_piece():
    """Create a small tokenizer whose decoder puts spaces between tokens."""
    words = ["[UNK]", "the", "cat", "##s", "do", "n", "'", "t", ".", "eat"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    return ModelTokenizer(tokenizer)


@cache
def ending(decoder):
    """Create a tokenizer whose decoder may change the end of the text."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate("abc ")}, unk_token="a"))
    tokenizer.decoder = decoder()
    return ModelTokenizer(tokenizer)


@cache
def stories():
    return read_tokenizer(STORIES)


KINDS = {
    "byte level": byte_level,
    "byte fallback": pytest.param(stories, marks=needs_stories),
    "word piece": word_piece,
    "doubles dropped": lambda: ending(decoders.CTC),
    "no decoder": lambda: ending(lambda: None),
}
every_kind = pytest.mark.parametrize("made", KINDS.values(), ids=KINDS)


def tokens_of(text, data, **sizes):
    return data.draw(st.lists(st.integers(0, text.tokenizer.get_vocab_size() + 2), **sizes))


def streamed(stream, tokens):
    """Return the text of each token, and the remaining text."""
    return [stream.push(token) for token in tokens] + [stream.finish()]


@every_kind
@given(data=st.data())
def test_streamed_text_equals_that_of_all_tokens_together(made, data):
    text = made()
    tokens = tokens_of(text, data, max_size=40)
    assert "".join(streamed(Detokenizer(text), tokens)) == text.decode(tokens)


@every_kind
@given(data=st.data())
def test_text_after_a_prompt_continues_it(made, data):
    text = made()
    prompt, tokens = tokens_of(text, data, max_size=8), tokens_of(text, data, max_size=20)
    pieces = streamed(Detokenizer(text, prompt), tokens)
    assert "".join(pieces) == text.decode(prompt + tokens)[len(text.decode(prompt)) :]


@needs_stories
@given(data=st.data())
def test_invalid_bytes_are_decoded_as_a_run(data):
    runs = st.lists(st.sampled_from([*range(3, 259), 300, 400]), max_size=12)
    tokens = data.draw(runs)
    assert "".join(streamed(Detokenizer(stories()), tokens)) == stories().decode(tokens)


@pytest.mark.parametrize("made", [byte_level, pytest.param(stories, marks=needs_stories)])
@given(line=st.text(max_size=30))
def test_no_piece_ends_within_a_character(made, line):
    text = made()
    tokens = text.encode(line)
    pieces = streamed(Detokenizer(text), tokens)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in line
    assert "".join(pieces) == text.decode(tokens)


@pytest.mark.parametrize("made", [byte_level, pytest.param(stories, marks=needs_stories)])
def test_text_is_emitted_as_soon_as_it_is_final(made):
    text = made()
    tokens = text.encode("the cat and the dog were there")
    stream = Detokenizer(text)
    for count, token in enumerate(tokens, start=1):
        stream.push(token)
        prefix = text.decode(tokens[:count])
        assert stream.finish() == "", prefix


@needs_stories
@pytest.mark.parametrize("line", ["Once upon a time", " two  spaces", "", "Größe 我", "a</s>b"])
def test_prompts_get_the_tokens_of_transformers(line):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    tokens = stories().encode(line)
    assert list(tokens) == tokenizer(line)["input_ids"]
    assert stories().decode(tokens) == tokenizer.decode(tokens, skip_special_tokens=True)


@needs_stories
def test_only_tokenizer_json_decides_on_special_tokens(tmp_path):
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(STORIES / name, tmp_path / name)
    config = json.loads((STORIES / "tokenizer_config.json").read_text())
    change = {"add_bos_token": False, "add_eos_token": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, **change}))
    expected = AutoTokenizer.from_pretrained(tmp_path)("Once upon")["input_ids"]
    assert list(read_tokenizer(tmp_path).encode("Once upon")) == expected


def test_prompt_is_neither_padded_nor_truncated(tmp_path):
    tokenizer = Tokenizer.from_str(byte_level().tokenizer.to_str())
    tokenizer.enable_padding(length=64)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path).encode(LINES[0]) == byte_level().encode(LINES[0])
    assert read_tokenizer(tmp_path).encode("a") == byte_level().encode("a")


def test_folder_without_a_tokenizer_is_refused_with_hints(tmp_path):
    with pytest.raises(ParframeError, match=r"has no tokenizer\.json") as raised:
        read_tokenizer(tmp_path)
    assert raised.value.kind == "load"
    assert "save_pretrained" in raised.value.hint
    assert "token IDs" in raised.value.hint


@pytest.mark.parametrize("content", ["{}", "[", '{"version": "9"}'])
def test_invalid_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ParframeError, match="is not a tokenizer") as raised:
        read_tokenizer(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("generation", "model", "expected"),
    [
        ({"eos_token_id": [5, 6]}, {"eos_token_id": 2}, (5, 6)),
        ({"eos_token_id": 5}, {"eos_token_id": 2}, (5,)),
        ({}, {"eos_token_id": 2}, (2,)),
        (None, {"eos_token_id": [2]}, (2,)),
        (None, {"eos_token_id": None}, ()),
        (None, None, ()),
    ],
)
def test_stop_tokens_come_from_the_generation_config_or_the_model_config(
    tmp_path, generation, model, expected
):
    for name, content in (("generation_config.json", generation), ("config.json", model)):
        if content is not None:
            (tmp_path / name).write_text(json.dumps(content))
    assert read_stop_tokens(tmp_path) == expected


@pytest.mark.parametrize("value", ["two", [1, None], True, -1])
def test_invalid_stop_tokens_are_refused(tmp_path, value):
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": value}))
    with pytest.raises(ParframeError, match="eos_token_id"):
        read_stop_tokens(tmp_path)


def character_by_character(text, stops):
    """Return the text before the first complete stop string."""
    for end in range(len(text) + 1):
        ends = [stop for stop in stops if text[:end].endswith(stop)]
        if ends:
            return text[: end - max(map(len, ends))]
    return text


PIECES = st.text("ab", max_size=5)


@given(st.lists(PIECES, max_size=8), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_no_part_of_a_stop_string_is_emitted(pieces, stops):
    stream = StopStrings(tuple(stops))
    expected = character_by_character("".join(pieces), stops)
    streamed_text = ""
    for piece in pieces:
        streamed_text += stream.push(piece)
        assert expected.startswith(streamed_text)
    assert streamed_text + stream.finish() == expected


def test_only_a_possible_stop_string_is_withheld():
    stream = StopStrings(("\n\nUser:",))
    assert [stream.push(piece) for piece in ("Hi", "\n", "\nUs", "e", " it", "\n")] == [
        "Hi", "", "", "", "\n\nUse it", "",
    ]  # fmt: skip
    assert stream.finish() == "\n"


def test_empty_stop_string_is_refused():
    with pytest.raises(ParframeError, match="stop string: is empty"):
        StopStrings(("",))


def test_stream_ends_at_a_stop_string_across_tokens():
    text = byte_level()
    stream = TextStream(text, (), ["dog"])
    pieces = [stream.push(token) for token in text.encode("the cat and the dog were")]
    assert "".join(pieces) == "the cat and the "
    assert stream.stopped
    assert stream.finish() == ""
