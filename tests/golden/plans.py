"""Digests of plans that do not depend on names of classes, values or files."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import attrs
import sympy

import parframe
from parframe.graph import BYTES, Ref
from parframe.plan import communicates, group_axes
from parframe.sizes import format_size

from .compare import Names

_PLAIN = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4,
    "intermediate_size": 112, "vocab_size": 128, "max_position_embeddings": 64, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 48}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama5": {"model_type": "llama", "num_hidden_layers": 5, "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "sliding_window": 6,
               "query_pre_attn_scalar": 8},
    "gpt2": {"model_type": "gpt2", "num_key_value_heads": None},
    "mixtral": {"model_type": "mixtral", "num_local_experts": 6, **_EXPERTS},
    "gpt_oss": {"model_type": "gpt_oss", "num_local_experts": 6, "head_dim": 8,
                "sliding_window": 6, **_EXPERTS},
    "deepseek_v3": {
        "model_type": "deepseek_v3", "num_hidden_layers": 3, "num_key_value_heads": 8,
        "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8,
        "v_head_dim": 8, **_EXPERTS,
    },
}  # fmt: skip
"""Configurations of small models, beyond what all of them share."""

_RING = '[strategies.cp]\nattention = "ring"\n'
_ZIGZAG = '[strategies.cp]\nplacement = "zigzag"\n'
_BOTH = '[strategies.cp]\nplacement = "zigzag"\nattention = "ring"\n'
_TO_ALL = '[strategies.ep]\ndispatch = "all_to_all"\n'
_GATHER = '[strategies.ep]\ndispatch = "all_gather"\n'

CASES: dict[str, tuple[str, str]] = {
    "tp": ("llama", 'parallel = "TP4"'),
    "tp-uneven": ("llama", 'parallel = "TP3"'),
    "tp-gpt2": ("gpt2", 'parallel = "TP2DP2"'),
    "tp-latent": ("deepseek_v3", 'parallel = "TP2"'),
    "tp-shares": ("llama", 'parallel = "TP2PP2"\nshares = { tp = [3, 1] }'),
    "tp-sp": ("llama", 'parallel = "TP4SP"'),
    "tp-sp-experts": ("gpt_oss", 'parallel = "TP2SPPP2"'),
    "tp-sp-windows": ("gemma2", 'parallel = "DP2TP2SP"'),
    "dp": ("llama", 'parallel = "DP2"'),
    "dp-shares": ("llama5", 'parallel = "TP2DP2"\nshares = { dp = [2, 1] }'),
    "declared": ("llama", 'parallel = "HP2TP2"\n[strategies.hp]\nsplits = ["heads"]\n'
                          '[strategies.tp]\nsplits = ["ffn", "vocab"]'),
    "splits": ("llama", 'mesh = { dp = 2, tp = 2 }\n'
                        'splits = { heads = ["tp"], ffn = ["dp", "tp"] }'),
    "pp": ("llama5", 'parallel = "PP2"'),
    "pp-cuts": ("llama5", 'parallel = "PP3"\n[strategies.pp]\nstage_starts = [1, 4]'),
    "pp-shares": ("llama5", 'parallel = "PP2"\nshares = { pp = [3, 1] }'),
    "pp-dp-tp": ("llama5", 'parallel = "PP2DP2TP2"'),
    "stages": ("llama5", 'parallel = "PP2TP4"\nstages = [\n{ tp = 4, layers = "0-2" },\n'
                         '{ tp = 2, layers = "3-4" },\n]'),
    "stages-zigzag": ("llama", 'parallel = "PP2CP3"\nstages = [\n{ cp = 2, layers = "0" },\n'
                               '{ cp = 3, layers = "1" },\n]\n' + _BOTH),
    "stages-experts": ("mixtral", 'parallel = "PP2EP4"\nstages = [\n{ ep = 4, layers = "0" },\n'
                                  '{ ep = 2, layers = "1" },\n]\n' + _TO_ALL),
    "cp": ("llama", 'parallel = "CP2TP2"'),
    "cp-ring": ("gemma2", 'parallel = "CP2"\n' + _RING),
    "cp-zigzag": ("llama", 'parallel = "PP2CP3"\n' + _ZIGZAG),
    "cp-ring-zigzag": ("llama", 'parallel = "DP2CP2TP2"\n' + _BOTH),
    "cp-ring-shares": ("llama", 'parallel = "CP3"\nshares = { cp = [4, 2, 1] }\n' + _BOTH),
    "cp-sp": ("gpt2", 'parallel = "CP2TP2SP"'),
    "ep-to-all": ("mixtral", 'parallel = "EP2"\n' + _TO_ALL),
    "ep-gather": ("mixtral", 'parallel = "EP4TP2"\n' + _GATHER),
    "ep-auto": ("gpt_oss", 'parallel = "EP2TP2DP2"'),
    "ep-uneven": ("mixtral", 'parallel = "EP4"\n' + _TO_ALL),
    "ep-latent": ("deepseek_v3", 'parallel = "PP2EP2TP2"\n' + _TO_ALL),
    "ep-latent-gather": ("deepseek_v3", 'parallel = "DP2EP2"\n' + _GATHER),
    "ep-cp": ("mixtral", 'parallel = "CP2EP2TP2SP"\n' + _TO_ALL),
    "view-tp": ("mixtral", 'mesh = { tp = 4 }\nsplits = { heads = ["tp"], vocab = ["tp"], '
                           'experts = ["tp"], expert_ffn = [] }'),
    "view-dp": ("mixtral", 'mesh = { dp = 3, tp = 2 }\nsplits = { batch = ["dp"], heads = ["tp"], '
                           'experts = ["dp"], expert_ffn = ["tp"] }'),
    "view-dp-tp": ("deepseek_v3", 'parallel = "DP2TP2"\nsplits = { experts = ["dp", "tp"], '
                                  'expert_ffn = [] }'),
    "view-ep-tp": ("gpt_oss", 'mesh = { ep = 2, tp = 2 }\nsplits = { heads = ["ep", "tp"], '
                              'vocab = ["ep", "tp"], experts = ["ep"], expert_ffn = ["tp"] }'),
}  # fmt: skip
"""A model and a spec for each golden plan."""


@cache
def graph_of(model: str, positions: bool = False) -> Any:
    """Load a small model."""
    config = {**_PLAIN, **MODELS[model]}
    given = {key: value for key, value in config.items() if value is not None}
    return parframe.load(given, positions=positions)


def plan_of(model: str, spec: str, positions: bool = False) -> Any:
    """Partition a small model as a spec says."""
    return parframe.partition(graph_of(model, positions), parframe.Spec.parse(spec))


def groups_of(plan: Any, rank: int) -> list[tuple[int, ...]]:
    """Return the group of each of a rank's communication operators, in order."""
    operators = plan.program(rank).operators
    return [plan.mesh.group(rank, group_axes(o)) for o in operators if communicates(o)]


def facts(name: str, names: Names) -> dict[str, Any]:
    """Return the digests of a plan, and a few numbers that help to find what differs."""
    plan = plan_of(*CASES[name])
    programs = list(plan.programs.values())
    targets = [[names.words(o.target) for o in program.operators] for program in programs]
    return {
        "digests": {part: _digest(lines) for part, lines in canonical(plan, names).items()},
        "operators": [len(program.operators) for program in programs],
        "targets": dict(Counter(target for program in targets for target in program)),
        "weight_bytes": [_weight_bytes(plan, rank) for rank in range(plan.mesh.size)],
    }


def canonical(plan: Any, names: Names) -> dict[str, list[str]]:
    """Return a plan as lines of text: its programs, devices, weights, groups and notes."""
    walk = _Walk(names)
    order = {name: place for place, name in enumerate(plan.programs)}
    ranks = range(plan.mesh.size)
    return {
        "programs": [line for program in plan.programs.values() for line in walk.program(program)],
        "devices": [
            f"{device.rank} {order[device.program]} {walk.mapping(device.bindings)}"
            for device in plan.devices
        ],
        "weights": [
            f"{rank} {walk.value((s.whole, s.shape, s.runs))}"
            for rank in ranks
            for s in plan.weights(rank).values()
        ],
        "groups": [f"{rank} {group}" for rank in ranks for group in groups_of(plan, rank)],
        "notes": [walk.value(note.bytes) for note in plan.notes],
    }


class _Walk:
    """Text of what a plan is made of; values are numbered in the order in which they appear."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.numbers: dict[str, int] = {}

    def program(self, program: Any) -> Iterator[str]:
        """Yield a line for all that a program takes, does and gives."""
        self.numbers = {}
        yield f"stage {program.stage}"
        for kind in ("inputs", "parameters"):
            for part in getattr(program, kind):
                yield f"{kind} {self.tensor(program, part.name)} {self.part(part)}"
        for operator in program.operators:
            given = self.mapping(operator.args, ordered=True)
            gives = [self.tensor(program, name) for name in operator.outputs]
            yield f"{self.names.words(operator.target)} {given} -> {', '.join(gives)}"
        for part in program.outputs:
            yield f"outputs {self.number(part.name)} {self.part(part)}"
        for state in program.states:
            yield f"state {self.number(state.value)}"
        for name, lies in program.layouts.items():
            partial = self.mapping(lies.partial)
            yield f"layout {self.number(name)} {self.value(lies.region)} {partial}"

    def number(self, name: str) -> str:
        return f"%{self.numbers.setdefault(name, len(self.numbers))}"

    def tensor(self, program: Any, name: str) -> str:
        tensor = program.tensors[name]
        return f"{self.number(name)}: {tensor.dtype}{self.value(tensor.shape)}"

    def part(self, part: Any) -> str:
        return f"{self.names.words(part.whole)} {self.value(part.region)}"

    def mapping(self, given: Mapping[str, Any], ordered: bool = False) -> str:
        items = [f"{self.names.words(key)}={self.value(value)}" for key, value in given.items()]
        return f"({', '.join(items if ordered else sorted(items))})"

    def value(self, value: Any) -> str:
        """Return the text of an argument, a size, a region or a record, without its class."""
        match value:
            case Ref():
                return self.number(value.name)
            case str():
                return self.names.text(value)
            case sympy.Expr():
                return format_size(self.size(value))
            case tuple() | list():
                return f"[{', '.join(map(self.value, value))}]"
            case Mapping():
                return self.mapping(value)
        if attrs.has(type(value)):
            inner = attrs.astuple(value, recurse=False)
            return f"<{', '.join(map(self.value, inner))}>"
        return repr(value)

    def size(self, size: Any) -> Any:
        """Return a size with the symbols of the golden files."""
        old = {part: self.names.words(part.name) for part in size.free_symbols}
        changed = {p: sympy.Symbol(n, **p.assumptions0) for p, n in old.items() if n != p.name}
        return size.xreplace(changed) if changed else size


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _weight_bytes(plan: Any, rank: int) -> int:
    weights = plan.weights(rank).values()
    return int(sum(s.elements * BYTES[plan.graph.parameters[s.whole].dtype] for s in weights))
