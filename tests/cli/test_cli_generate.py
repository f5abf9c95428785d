import io
import itertools
import json

import handwritten
import pytest
import tiny_tokenizers
from plan_assertions import STORIES, needs_stories

from parframe import graph_json
from parframe.cli.completion_printers import JSONLinesPrinter, TextPrinter
from parframe.cli.completions import Completion, collect_completions
from parframe.cli.output_stream import replace_control_characters
from parframe.cli.prompts import Prompt, read_prompts
from parframe.errors import KINDS, ParframeError
from parframe.generation import Failure, Request, Result, Sampling, Token
from parframe.generation.tokenization import ModelTokenizer

LOST = Failure(1, ParframeError("run", "rank 1", "was lost", "start it again"))


@pytest.fixture
def model(tmp_path):
    """Return the path of a graph, which is enough to refuse a command line."""
    graph_json.write_graph(handwritten.mlp(), tmp_path / "graph.json")
    return tmp_path / "graph.json"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "no prompt is given"),
        (("--prompt", "a", "--top-k", "3"), "--top-k: has no effect at temperature 0"),
        (("--prompt", "a", "--top-p", "0.5"), "--top-p: has no effect at temperature 0"),
        (("--prompt", "a", "--top-p", "0"), "0<x<=1"),
        (("--prompt", "a", "--temperature", "-1"), "x>=0"),
        (("--prompt", "a", "--max-new-tokens", "0"), "x>=1"),
        (("--prompt", "a", "--json", "--stream"), "--stream: cannot be combined with --json"),
        (
            ("--prompt", "a", "--compile", "--executor", "simulate"),
            "does not work with --executor simulate",
        ),
        (
            ("--prompt", "a", "--executor", "slurm"),
            "unknown name; use one of local, torchrun, host, simulate",
        ),
        (("--prompt", "a", "--device", "tpu"), "'tpu' is not one of"),
        (("--prompt", "a", "--batch", "2", "--micro-batches", "4"), "a batch of 2 cannot"),
        (("--prompt", "a", "--timeout", "0"), "x>0"),
        (("--prompt", "a"), "has no .safetensors; give --weights PATH, or --weights random"),
    ],
)
def test_wrong_command_line_is_refused_with_a_hint(call, model, arguments, what):
    result = call("generate", model, *arguments)
    assert result.code == KINDS["usage"][0]
    assert result.err.startswith("error[usage] parframe generate")
    assert what in result.err
    assert result.err.count("\n") == 1
    assert result.out == "" or "--json" in arguments


def test_temperature_nan_is_refused(call, model):
    result = call("generate", model, "--prompt", "a", "--temperature", "nan")
    assert result.err.startswith("error[input] temperature: nan")


def test_plan_excludes_parallel(call, tmp_path):
    handwritten.tensor_parallel(2).save(tmp_path / "plan")
    result = call("generate", tmp_path / "plan", "--prompt", "a", "--parallel", "TP2")
    assert "is already a plan; give the model instead" in result.err


def test_missing_weights_folder_is_reported(call, model):
    result = call("generate", model, "--prompt", "a", "--weights", "nowhere")
    assert result.err.startswith("error[weights] nowhere: is not a folder")


@needs_stories
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("--context", "4"), "the prompt has 5 tokens, the cache has 4"),
        (("--context", "9", "--max-new-tokens", "6"), "the cache has 9; set at most 5 new"),
        (("--max-new-tokens", "511"), "the model has 512; set at most 508 new tokens"),
        (("--stop", ""), "stop string: is empty"),
    ],
)
def test_prompt_that_does_not_fit_is_refused_before_the_run(call, arguments, what):
    result = call("generate", STORIES, "--prompt", "Once upon a time", *arguments)
    assert result.code == KINDS["input"][0]
    assert what in result.err


@needs_stories
def test_default_number_of_new_tokens_is_as_many_as_fit(call):
    given = ("--prompt", "Once upon a time", "--context", "9", "--executor", "simulate", "--json")
    result = call("generate", STORIES, *given)
    assert len(result.json["tokens"]) == 5


def test_text_needs_a_tokenizer(call, tmp_path):
    config = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 16, "vocab_size": 32,
              "intermediate_size": 16, "num_attention_heads": 2}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    result = call("generate", tmp_path, "--prompt", "a", "--weights", "random")
    assert result.err.startswith(f"error[load] {tmp_path}: has no tokenizer.json")


def test_prompts_of_options_come_before_lines_of_the_file(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("one\r\n\n  two {x}\n", encoding="utf-8")
    found = read_prompts(("zero",), str(file))
    assert [prompt.text for prompt in found] == ["zero", "one", "  two {x}"]


def test_prompts_are_read_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"prompt": "a\\nb", "seed": 3}\n{"tokens": [1]}'))
    assert read_prompts((), "-") == (Prompt("a\nb", (), {"seed": 3}), Prompt(None, (1,)))


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ("{}", "needs either prompt or tokens"),
        ('{"prompt": "a", "tokens": [1]}', "needs either prompt or tokens"),
        ('{"prompt": 1}', "its prompt is not a text"),
        ('{"tokens": "1 2"}', "its tokens are not a list"),
        ('{"tokens": [1, 2.5]}', "its tokens are not integers"),
        ('{"prompt": "a", "top_kk": 1}', "'top_kk' is not a key (did you mean 'top_k'?)"),
    ],
)
def test_invalid_line_is_reported_with_its_number(tmp_path, line, what):
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'{{"prompt": "a"}}\n\n{line}\n')
    with pytest.raises(ParframeError) as raised:
        read_prompts((), str(file))
    assert raised.value.where == f"{file}, line 3"
    assert what in raised.value.what
    assert '{"prompt": "Once upon"}' in raised.value.hint


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"\n \n"])
def test_file_without_prompts_is_reported(tmp_path, content):
    file = tmp_path / "prompts"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ParframeError, match=str(file)):
        read_prompts((), str(file))


def completions(*texts, stops=()):
    """Return completions of the tokens of some texts, and the events of each."""
    text = tiny_tokenizers.byte_level()
    found, events = [], []
    for number, content in enumerate(texts):
        request = Request(number, (5,), Sampling(stop=(0,)))
        found.append(Completion(Prompt("p"), request, text, stops))
        tokens = text.encode(content)
        drawn = [Token(number, step, token) for step, token in enumerate(tokens)]
        events.append([*drawn, Result(number, (*tokens, 0), "stop")])
    return found, events


class Events:
    """Events that record whether they were closed."""

    def __init__(self, *events):
        self.left = list(events)
        self.closed = False

    def __iter__(self):
        while self.left:
            yield self.left.pop(0)

    def close(self):
        self.closed = True


def printed(found, events, streaming=True):
    """Return every printed piece, and the failures."""
    out = io.StringIO()
    show = TextPrinter(found, out, streaming)
    pieces = [""]

    def step():
        show()
        pieces.append(out.getvalue())

    failures = collect_completions(events, found, step)
    return [after[len(before) :] for before, after in itertools.pairwise(pieces)], failures


def test_text_is_streamed():
    found, (events,) = completions("the cat")
    pieces, _ = printed(found, Events(*events))
    assert "".join(pieces) == "the cat\n"
    assert sum(bool(piece) for piece in pieces) > 1
    pieces, _ = printed(completions("the cat")[0], Events(*events), streaming=False)
    assert [piece for piece in pieces if piece] == ["the cat\n"]


@pytest.mark.parametrize("streaming", [True, False])
def test_completions_are_printed_in_the_order_of_the_prompts(streaming):
    found, (first, second) = completions("the cat", "and\nthe dog")
    pieces, _ = printed(found, Events(*second, *first), streaming)
    assert "".join(pieces) == "the cat\nand\nthe dog\n"


def test_results_without_tokens_are_printed():
    found, events = completions("the cat", "a dog")
    pieces, _ = printed(found, Events(*(each[-1] for each in events)))
    assert "".join(pieces) == "the cat\na dog\n"


def test_events_are_closed_once_all_completions_reached_a_stop_string():
    found, (first, second) = completions("the cat and the dog", "a dog", stops=("cat",))
    events = Events(*first[:-1], *second[:-1], *second[-1:], *first[-1:])
    pieces, _ = printed(found, events)
    assert "".join(pieces) == "the \na dog\n"
    assert events.closed
    assert len(events.left) == 1
    assert found[0].facts["finish_reason"] == "stop"


def test_failure_leaves_other_completions_complete():
    found, (first, second) = completions("the cat", "a dog")
    pieces, failures = printed(found, Events(second[0], LOST, *first))
    assert failures == (LOST,)
    assert "".join(pieces).startswith("the cat\n")
    assert found[1].facts["error"]["what"] == "was lost"


def test_failed_run_ends_every_pending_prompt_with_its_error():
    found, (first, *_) = completions("the cat", "a dog", "and the dog")

    def events():
        yield from first
        raise LOST.error

    out = io.StringIO()
    failures = collect_completions(events(), found, JSONLinesPrinter(found, out))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [failure.number for failure in failures] == [1, 2]
    assert lines[0]["text"] == "the cat"
    assert [line["error"]["where"] for line in lines[1:]] == ["rank 1", "rank 1"]


def test_prompt_without_an_outcome_is_named():
    found, (first, _) = completions("the cat", "a dog")
    with pytest.raises(ParframeError, match="requests 1: 1 of 2 requests have no outcome"):
        printed(found, Events(*first))


def test_json_lines_have_prompt_text_tokens_and_finish_reason():
    found, (first, second) = completions("the cat", "a dog")
    out = io.StringIO()
    collect_completions(Events(*second, *first), found, JSONLinesPrinter(found, out))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["text"] for line in lines] == ["the cat", "a dog"]
    assert lines[0] == {
        "number": 0, "prompt": "p", "text": "the cat", "tokens": list(first[-1].tokens),
        "finish_reason": "stop",
    }  # fmt: skip


def test_token_ids_are_printed_without_a_tokenizer():
    found = [Completion(Prompt(None, (1, 2)), Request(0, (1, 2)), None)]
    pieces, _ = printed(found, Events(Token(0, 0, 7), Token(0, 1, 9), Result(0, (7, 9), "length")))
    assert "".join(pieces) == "7 9\n"
    assert found[0].facts["prompt"] == (1, 2)


def test_control_characters_are_removed():
    assert replace_control_characters("a\x1b[2J\r\x9b\n\tü🐘") == "a?[2J??\n\tü🐘"


def test_ordinary_stop_token_gives_no_text():
    text = tiny_tokenizers.byte_level()
    assert isinstance(text, ModelTokenizer)
    cat, dog = text.encode("cat"), text.encode("dog")
    request = Request(0, cat, Sampling(stop=dog))
    found = [Completion(Prompt("cat"), request, text)]
    pieces, _ = printed(found, Events(Result(0, (*cat, dog[0]), "stop")))
    assert "".join(pieces) == "cat\n"
