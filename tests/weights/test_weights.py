"""A rank's weights: exactly its slices, exactly their bytes, and clear words where they are not."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading

import hypothesis.strategies as st
import models
import numpy
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

import parframe
from parframe.errors import ParframeError
from parframe.plan import plan_digest
from parframe.weights import (
    OpenedWeights,
    RandomWeights,
    file_reader,
    open_weights,
    read_state_dict,
    read_weights,
    write_shards,
)
from parframe.weights.compatibility import MatchedWeights
from parframe.weights.file_reader import ReadJob, open_reader
from parframe.weights.safetensors_header import read_header
from parframe.weights.sources import WeightSource
from parframe.weights.strided_views import slice_pieces, whole_view
from parframe.weights.tensor_tracing import UntraceableError, trace_tensor

FILES = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True}),
    "fused qkv by heads": ("gpt_neox", {}),
    "fused qkv and gate by blocks": ("phi3", {}),
    "transposed fused qkv": ("gpt2", {}),
    "an expert a tensor": ("mixtral", {}),
    "experts, some shared": ("deepseek_v3", {}),
    "experts interleaved, with biases": ("gpt_oss", {}),
}
PLANS = {True: ("TP2", "PP2", "EP2TP2"), False: ("TP2", "TP3", "PP2")}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Makes a family's folder once: the folder, its graph, and its model's weights by name."""
    made = {}

    def make(case):
        if case not in made:
            name, changes = FILES[case]
            model = models.tiny_model(name, **changes).float()
            model.config.dtype = "float32"
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder, max_shard_size="200KB")
            graph = parframe.load(folder)
            made[case] = folder, graph, read_state_dict(graph, model)
        return made[case]

    return make


@pytest.fixture
def counted(monkeypatch):
    """Counts the bytes of tensors that are read."""
    total = [0]
    real = os.preadv

    def counting(*arguments):
        count = real(*arguments)
        total[0] += count
        return count

    monkeypatch.setattr(file_reader.os, "preadv", counting)
    return total


@pytest.mark.parametrize("case", FILES)
def test_every_rank_has_its_slices_and_reads_no_more(saved, counted, case):
    folder, graph, whole = saved(case)
    for composite in PLANS[FILES[case][0] in models.MIXTURES]:
        plan = parframe.partition(graph, composite)
        for rank in range(plan.mesh.size):
            counted[0] = 0
            found = read_weights(plan, rank, folder)
            wanted = plan.weights(rank)
            assert list(found) == list(wanted)
            for name, part in wanted.items():
                assert torch.equal(found[name], part.take(whole[part.whole])), (composite, name)
            stored = {
                (part.whole, part.runs): part.elements * 4
                for part in wanted.values()
                if graph.parameters[part.whole].data is None
            }
            assert sum(stored.values()) <= counted[0] <= 1.02 * sum(stored.values())


def test_tied_weights_are_read_once_and_share_memory(saved, counted):
    folder, graph, _ = saved("llama tied")
    plan = parframe.partition(graph, "PP2")
    names = [
        [n for n, part in plan.weights(rank).items() if "embed" in part.whole] for rank in (0, 1)
    ]
    assert all(names)
    plan = parframe.partition(graph, "TP2")
    found = read_weights(plan, 0, folder)
    tied = [found[n].data_ptr() for n, p in plan.weights(0).items() if "embed" in p.whole]
    assert len(set(tied)) == 1


def test_names_of_equal_slices_share_memory(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(6, 6, bias=False)
            self.two = torch.nn.Linear(6, 6, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(torch.relu(self.one(x)))

    graph = parframe.load(Tied(), {"x": torch.zeros(2, 6)})
    save_file({"two.weight": torch.randn(6, 6)}, tmp_path / "model.safetensors")
    plan = parframe.partition(graph, "DP2")
    found = read_weights(plan, 1, tmp_path)
    assert all(torch.equal(t, load_file(tmp_path / "model.safetensors")["two.weight"])
               for t in found.values())  # fmt: skip
    assert len({tensor.data_ptr() for tensor in found.values()}) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_numbers_are_converted_in_bounded_parts(saved, monkeypatch, dtype):
    folder, graph, whole = saved("an expert a tensor")
    monkeypatch.setattr(file_reader, "STAGING_BYTES", 3000)
    plan = parframe.partition(graph, "EP2TP2")
    found = read_weights(plan, 3, folder, dtype=dtype)
    for name, part in plan.weights(3).items():
        if graph.parameters[part.whole].data is None:
            assert torch.equal(found[name], part.take(whole[part.whole]).to(dtype)), name


def test_progress_rises_to_the_bytes_of_the_shard(saved, monkeypatch):
    folder, graph, _ = saved("llama")
    monkeypatch.setattr(file_reader, "STAGING_BYTES", 5000)
    reports = []
    read_weights(
        parframe.partition(graph, "TP2"), 0, folder, progress=lambda *report: reports.append(report)
    )
    done, totals = zip(*reports, strict=True)
    assert len(done) > 3
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}


def test_a_state_dict_is_taken_without_a_copy(saved):
    _, graph, whole = saved("llama")
    plan = parframe.partition(graph, "TP2")
    weights = {n: t for n, t in whole.items() if graph.parameters[n].data is None}
    found = read_weights(plan, 1, weights)
    name = next(n for n, p in plan.weights(1).items() if p.whole.endswith("q_proj.weight"))
    own = weights[plan.weights(1)[name].whole]
    assert found[name].untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
    assert found[name].shape == (own.shape[0] // 2, own.shape[1])


def test_a_state_dict_with_a_tensor_an_expert_is_put_together(saved):
    folder, graph, whole = saved("an expert a tensor")
    weights = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    plan = parframe.partition(graph, "EP2TP2")
    for rank in range(4):
        found = read_weights(plan, rank, weights)
        for name, part in plan.weights(rank).items():
            assert torch.equal(found[name], part.take(whole[part.whole]))


def test_a_tensor_in_memory_that_is_stored_turned_is_turned(saved):
    graph = parframe.load(torch.nn.Linear(4, 4, bias=False), {"input": torch.zeros(2, 4)})
    stored = torch.randn(4, 4)
    view = trace_tensor("w", (4, 4), "float32").t().view_of
    opened = OpenedWeights(WeightSource("memory", {"w": stored}), MatchedWeights({"weight": view}))
    (found,) = read_weights(parframe.partition(graph, "DP2"), 0, opened).values()
    assert torch.equal(found, stored.t())


def test_a_base_models_names_are_those_of_the_model_with_a_head(saved, tmp_path):
    folder, graph, _ = saved("transposed fused qkv")
    content = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    bare = {name.removeprefix("transformer."): t for name, t in content.items()}
    save_file(bare, tmp_path / "model.safetensors")
    plan = parframe.partition(graph, "TP2")
    found, expected = read_weights(plan, 1, tmp_path), read_weights(plan, 1, folder)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("weights", ["random", RandomWeights(0), RandomWeights(5)])
def test_random_weights_are_slices_of_those_of_the_whole_model(saved, weights):
    _, graph, _ = saved("llama")
    whole = read_state_dict(graph, None, seed=getattr(weights, "seed", 0))
    plan = parframe.partition(graph, "TP3")
    for rank in range(3):
        found = read_weights(plan, rank, weights)
        for name, part in plan.weights(rank).items():
            assert torch.equal(found[name], part.take(whole[part.whole]))
            assert found[name].untyped_storage().nbytes() == found[name].nbytes


def test_weights_are_never_random_unless_asked(saved):
    _, graph, _ = saved("llama")
    with pytest.raises(ParframeError, match="'random' for random ones"):
        read_weights(parframe.partition(graph, "TP2"), 0, None)


def altered(saved, tmp_path, change):
    """A folder of the Llama's weights after a change to them, and a plan."""
    folder, graph, _ = saved("llama")
    content = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    change(content)
    save_file(content, tmp_path / "model.safetensors")
    return parframe.partition(graph, "TP2"), tmp_path


NORM, HEAD, QUERY = "model.norm.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj"
CHANGES = {
    "missing": (lambda c: c.pop(NORM), [f"{NORM} is missing"]),
    "misshapen": (lambda c: c.update({NORM: torch.zeros(3)}), ["has the shape [3], not [64]"]),
    "integers": (
        lambda c: c.update({NORM: torch.zeros(64, dtype=torch.int8)}),
        ["is int8, which does not convert to float32"],
    ),
    "one byte": (
        lambda c: c.update({NORM: torch.zeros(64, dtype=torch.float8_e4m3fn)}),
        ["is float8_e4m3fn, which does not convert"],
    ),
    "a bias too much": (
        lambda c: c.update({f"{QUERY}.bias": torch.zeros(64)}),
        [f"{QUERY}.bias is not in the model", "--extra"],
    ),
    "all at once": (
        lambda c: (c.pop(NORM), c.update({HEAD: torch.zeros(1), f"{QUERY}.bias": torch.ones(64)})),
        [f"{NORM} is missing", f"{HEAD} has the shape [1]", f"{QUERY}.bias is not in the model"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_does_not_fit_is_all_told_before_anything_is_read(saved, tmp_path, counted, case):
    change, expected = CHANGES[case]
    plan, folder = altered(saved, tmp_path, change)
    with pytest.raises(ParframeError) as caught:
        read_weights(plan, 0, folder)
    assert caught.value.kind == "weights"
    assert [text for text in expected if text not in str(caught.value)] == []
    assert counted[0] == 0


HARMLESS = {
    "a buffer that the model computes": {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)},
    "a head for another task": {"score.weight": (2, 64)},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_tensor_that_cannot_change_the_result_is_let_pass(saved, tmp_path, case):
    more = {name: torch.ones(shape) for name, shape in HARMLESS[case].items()}
    plan, folder = altered(saved, tmp_path, lambda c: c.update(more))
    read_weights(plan, 0, folder)
    remarks = open_weights(plan.graph, folder).fit.remarks
    assert ("score.weight" in " ".join(remarks)) == ("score.weight" in more)


def test_what_the_models_class_ignores_is_let_pass_under_any_prefix(saved, tmp_path):
    folder, graph, _ = saved("transposed fused qkv")
    content = {n: t for file in folder.glob("*.safetensors") for n, t in load_file(file).items()}
    for prefix in ("transformer.", ""):
        named = {prefix + name.removeprefix("transformer."): t for name, t in content.items()}
        named[f"{prefix}h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
        save_file(named, tmp_path / "model.safetensors")
        assert open_weights(graph, tmp_path).fit.remarks == ()
        save_file(
            {**named, f"{prefix}h.0.attn.q.bias": torch.ones(3)}, tmp_path / "model.safetensors"
        )
        with pytest.raises(ParframeError, match=r"h\.0\.attn\.q\.bias is not in the model"):
            open_weights(graph, tmp_path)


def test_a_tensor_too_much_is_left_out_where_that_is_asked_for(saved, tmp_path):
    plan, folder = altered(saved, tmp_path, lambda c: c.update({f"{QUERY}.bias": torch.zeros(64)}))
    assert read_weights(plan, 0, folder, extra=True).keys() == plan.weights(0).keys()


def test_the_weights_of_another_model_are_named_as_such(saved):
    plan = parframe.partition(saved("llama")[1], "TP2")
    with pytest.raises(ParframeError, match=r"another model: \d+ of \d+ do not fit") as caught:
        read_weights(plan, 0, saved("fused qkv by heads")[0])
    assert caught.value.what.count("is missing") == 3


def broken_header(path):
    path.write_bytes((1 << 40).to_bytes(8, "little") + b"{}")


def overlapping(path):
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


def wrong_size(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))


FAULTS = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "broken header": broken_header,
    "overlapping offsets": overlapping,
    "offsets that do not fit the shape": wrong_size,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_broken_file_is_named(saved, tmp_path, case):
    plan, folder = altered(saved, tmp_path, lambda content: None)
    FAULTS[case](tmp_path / "model.safetensors")
    with pytest.raises(ParframeError, match=r"model\.safetensors") as caught:
        read_weights(plan, 0, folder)
    assert caught.value.kind == "weights"


def test_a_file_that_is_cut_while_it_is_read_is_named(saved, tmp_path):
    plan, folder = altered(saved, tmp_path, lambda content: None)
    opened = open_weights(plan.graph, folder)
    os.truncate(tmp_path / "model.safetensors", 5000)
    with pytest.raises(ParframeError, match="the file ends too early"):
        read_weights(plan, 0, opened)


def test_an_index_that_names_a_tensor_too_much_is_refused(saved, tmp_path):
    plan, folder = altered(saved, tmp_path, lambda content: None)
    names = [*read_header(folder / "model.safetensors").tensors, "phantom"]
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ParframeError, match="that the index names, such as 'phantom'"):
        read_weights(plan, 0, folder)


def test_two_files_with_one_tensor_are_refused_without_an_index(tmp_path, saved):
    plan, folder = altered(saved, tmp_path, lambda content: None)
    save_file({NORM: torch.zeros(64)}, tmp_path / "z.safetensors")
    with pytest.raises(ParframeError, match=r"and so has model\.safetensors"):
        read_weights(plan, 0, folder)


def test_a_pickle_is_read_only_where_asked_and_never_run(saved, tmp_path):
    _, graph, whole = saved("llama")
    plan = parframe.partition(graph, "TP2")
    weights = {n: t for n, t in whole.items() if graph.parameters[n].data is None}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(ParframeError, match="pickled=True"):
        read_weights(plan, 0, tmp_path)
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        found, expected = read_weights(plan, 0, path, pickled=True), read_weights(plan, 0, weights)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    torch.save({"a": pytest.raises}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ParframeError, match="cannot be read as tensors alone"):
        read_weights(plan, 0, tmp_path, pickled=True)
    (tmp_path / "pytorch_model.bin").write_bytes(b"none")
    with pytest.raises(ParframeError, match="cannot be read as tensors alone"):
        read_weights(plan, 0, tmp_path, pickled=True)


@st.composite
def sliced(draw):
    """A shape and for each axis of it runs in order."""
    shape, runs = [], []
    for _ in range(draw(st.integers(0, 4))):
        size = draw(st.integers(1, 9))
        ends = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
        found = list(zip(ends[::2], ends[1::2], strict=False))
        shape.append(size)
        runs.append(tuple(found or [(0, size)]))
    return tuple(shape), tuple(runs)


DTYPES = (torch.complex64, torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.bool)


@settings(max_examples=150, deadline=None)
@given(sliced(), st.sampled_from(DTYPES), st.data())
def test_any_slices_of_any_arrangement_are_those_of_numpy(tmp_path_factory, case, dtype, data):
    shape, runs = case
    whole = torch.randint(0, 200, shape).to(dtype)
    order = data.draw(st.permutations(range(len(shape))))
    stored_as = whole.permute(order).contiguous()
    path = tmp_path_factory.mktemp("slices") / "one.safetensors"
    save_file({"w": stored_as}, path)
    stored = read_header(path).tensors["w"]
    back = trace_tensor("w", stored.shape, stored.dtype).permute(numpy.argsort(order).tolist())
    view = back.view_of if shape else whole_view("w", (), stored.dtype)
    target = torch.zeros([sum(b - a for a, b in axis) for axis in runs], dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_reader, "STAGING_BYTES", data.draw(st.sampled_from([16 << 20, 64])))
        with open_reader(10**6 if data.draw(st.booleans()) else 0, None) as made:
            for cut in slice_pieces(view, runs):
                made.run(ReadJob(stored, cut, target))
    expected = whole
    for axis, found in enumerate(runs):
        index = torch.cat([torch.arange(a, b) for a, b in found])
        expected = expected.index_select(axis, index)
    assert torch.equal(target, expected)


def made_of(view, stored):
    """The tensor that a view stands for."""
    made = torch.full(view.shape, torch.nan)
    for piece in view.pieces:
        box = tuple(slice(at, at + size) for at, size in zip(piece.at, piece.shape, strict=True))
        made[box] = stored[piece.tensor].as_strided(piece.shape, piece.strides, piece.offset)
    return made


PAIR = {"a": torch.arange(24.0).reshape(4, 6), "b": torch.arange(100.0, 124.0).reshape(4, 6)}
STEPS = {
    "stack": lambda a, b: torch.stack([a, b], -1),
    "cat": lambda a, b: torch.cat([a, b], 1),
    "interleave": lambda a, b: a.reshape(2, 2, 6).transpose(0, 1).reshape(4, 6).contiguous(),
    "chunks": lambda a, b: torch.cat((*torch.chunk(a.t(), 3, 0)[::-1], b.t())),
    "unbind": lambda a, b: torch.stack(torch.stack([a, b]).unbind(1)[1:3])[:, :, 1:4],
    "squeeze": lambda a, b: torch.split(a, [1, 3])[0].squeeze(0).unsqueeze(-1).clone(),
    "flatten": lambda a, b: torch.stack([a, b]).reshape(2, 24),
}


@pytest.mark.parametrize("name", STEPS)
def test_tensors_are_followed_through_what_rearranges_them(name):
    followed = (trace_tensor(own, (4, 6), "float32") for own in PAIR)
    assert torch.equal(made_of(STEPS[name](*followed).view_of, PAIR), STEPS[name](*PAIR.values()))


@pytest.mark.parametrize("step", [lambda a: a + 1, lambda a: torch.cat([a, a]).view(2, 2, 2, 6)])
def test_what_does_more_than_rearrange_is_not_followed(step):
    with pytest.raises(UntraceableError):
        step(trace_tensor("a", (4, 6), "float32"))


def test_operations_of_transformers_are_followed_to_what_they_make():
    from transformers import LlamaConfig
    from transformers import core_model_loading as core

    source = torch.randn(12, 8)
    for operations in (
        [core.Interleave(dim=0)],
        [core.Interleave(dim=1, inverse=True)],
        [core.PermuteForRope()],
        [core.Transpose(0, 1)],
        [core.Interleave(dim=0), core.Transpose(0, 1)],
    ):

        def made(tensor, operations=operations):
            found = {"source": [tensor]}
            for one in operations:
                found = one.convert(
                    found, source_patterns=["source"], target_patterns=["source"],
                    config=LlamaConfig(num_attention_heads=2),
                )  # fmt: skip
            return found["source"]

        view = made(trace_tensor("w", (12, 8), "float32")).view_of
        assert torch.equal(made_of(view, {"w": source}), made(source)), operations


def test_a_folder_of_shards_gives_what_the_model_gives(saved, tmp_path, counted):
    for case in ("llama tied", "an expert a tensor"):
        folder, graph, _ = saved(case)
        plan = parframe.partition(graph, "DP2TP2")
        out = tmp_path / case
        written = write_shards(plan, folder, out)
        assert written.files[0] == written.files[2] != written.files[1] == written.files[3]
        loaded = parframe.load_plan(out)
        for rank in range(4):
            counted[0] = 0
            found, expected = read_weights(loaded, rank, out), read_weights(plan, rank, folder)
            assert list(found) == list(expected)
            assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_shards_keep_the_dtype_they_were_written_in(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    (tmp_path / "out").mkdir()  # empty, and so made use of
    write_shards(plan, folder, tmp_path / "out", dtype=torch.bfloat16)
    found, whole = (
        read_weights(plan, 1, tmp_path / "out"),
        read_weights(plan, 1, folder, dtype=torch.bfloat16),
    )
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_shards_of_another_plan_are_refused(saved, tmp_path):
    folder, graph, _ = saved("llama")
    write_shards(parframe.partition(graph, "TP2"), folder, tmp_path / "out")
    with pytest.raises(ParframeError, match=r"shards of another plan: sha256:") as caught:
        read_weights(parframe.partition(graph, "PP2"), 0, tmp_path / "out")
    assert caught.value.kind == "weights"
    with pytest.raises(ParframeError, match="not the whole weights"):
        read_state_dict(graph, tmp_path / "out")


def test_a_plans_digest_is_of_what_it_says_and_not_of_where_it_was_made(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    plan.save(tmp_path / "plan")
    code = (
        "import os, sys, parframe; from parframe.plan import plan_digest;"
        "os.chdir(sys.argv[1]); plan = parframe.partition(parframe.load('.'), 'TP2');"
        "print(plan_digest(plan), plan_digest(parframe.load_plan(sys.argv[2])))"
    )
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folder), str(tmp_path / "plan")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert set(told.stdout.split()) == {plan_digest(plan)}
    assert plan_digest(parframe.partition(graph, "PP2")) != plan_digest(plan)


def test_nothing_is_left_where_writing_fails(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(ParframeError, match="cannot be written") as caught:
            write_shards(plan, folder, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.kind == "output"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_of_weights_that_do_not_fit(saved, tmp_path):
    plan = parframe.partition(saved("llama")[1], "TP2")
    with pytest.raises(ParframeError, match="another model"):
        write_shards(plan, saved("fused qkv by heads")[0], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["full", "file", "missing/out", "file/out"])
def test_shards_go_only_where_nothing_is(saved, tmp_path, place):
    folder, graph, _ = saved("llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ParframeError) as caught:
        write_shards(parframe.partition(graph, "TP2"), folder, tmp_path / place)
    assert caught.value.kind == "output"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_of_two_runs_into_one_folder_one_is_refused(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    begun, refused = threading.Event(), []

    def second(done, total):
        if not begun.is_set():
            begun.set()
            with pytest.raises(ParframeError, match="being written by another run"):
                write_shards(plan, folder, tmp_path / "out")
            refused.append(True)

    write_shards(plan, folder, tmp_path / "out", progress=second)
    assert refused == [True]
    assert read_weights(plan, 1, tmp_path / "out").keys() == plan.weights(1).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_run_left_is_cleared_away(saved, tmp_path):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    (tmp_path / ".out.new").mkdir()
    (tmp_path / ".out.new" / "rank-00000.safetensors").write_bytes(b"half")
    (tmp_path / ".out.lock").touch()
    write_shards(plan, folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("content", ["{", "{}", '{"schema": 9}', '{"files": ["../x"]}'])
def test_a_broken_folder_of_shards_is_refused(saved, tmp_path, content):
    folder, graph, _ = saved("llama")
    plan = parframe.partition(graph, "TP2")
    write_shards(plan, folder, tmp_path / "out")
    (tmp_path / "out" / "shards.json").write_text(content)
    with pytest.raises(ParframeError) as caught:
        read_weights(plan, 0, tmp_path / "out")
    assert caught.value.kind == "weights"
