"""Facts that `fit`, `choose`, `estimate` and `predict` print, without prose."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

from parframe.cli import group
from parframe.cli.failures import run

from .compare import Names

MODELS = {
    "llama-3.1-8b": 2, "llama-3.1-70b": 8, "mixtral-8x7b": 8, "qwen3-30b-a3b": 4,
    "deepseek-v3": 16, "gemma-2-27b": 4, "gpt-oss-20b": 2, "gpt-j-6b": 4,
}  # fmt: skip
"""Dense ones of three sizes, experts, a latent cache, windows: each with a number of devices."""

GPUS = ("H100 SXM", "L40S", "MI300X", "A100 SXM 80GB", "RTX 4090", "B200 SXM", "V100 SXM 32GB",
        "H100 PCIe")  # fmt: skip
"""Of two vendors and five generations, joined by NVLink, xGMI and PCIe."""

ENGINES = ("vLLM", "TensorRT-LLM 0.17", None, "TensorRT-LLM 1", "gpt-fast")
SETTINGS = (
    (),
    ("--dtype", "fp8"),
    ("--use-case", "batch", "--objective", "cost"),
    ("--use-case", "voice", "--objective", "latency"),
    ("--dtype", "int4", "--prompt-tokens", "3000", "--output-tokens", "100", "--concurrency", "7"),
)
METRICS = (
    ("tpot", "ms"), ("ttft", "ms"), ("e2e_latency", "s"), ("output_tokens_per_s_total", "tokens/s"),
    ("total_tokens_per_s", "tokens/s"), ("decode_tokens_per_s", "tokens/s"),
    ("output_tokens_per_s_per_gpu", "tokens/s"), ("prefill_tokens_per_s", "tokens/s"),
)  # fmt: skip
COMPOSITES = ("TP{0}", "PP{0}", "PP2TP{1}", "TP{1}DP2")


def cases() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every golden file's name, and the command that it holds, `FILE` apart."""
    for number, (model, devices) in enumerate(MODELS.items()):
        gpus = [word for gpu in GPUS for word in ("--gpu", gpu)]
        yield f"fit-{model}", ("fit", model, "--max-devices", "32", *gpus)
        for turn in (0, 3):
            gpu = GPUS[(number + turn) % len(GPUS)]
            settings = (*_engine(number + turn), *SETTINGS[(number + turn) % len(SETTINGS)])
            several = ("--devices", f"{devices if turn else max(devices // 2, 2)}x{gpu}")
            yield f"choose-{model}-{_plain(gpu)}", ("choose", model, *several, *settings)
        for turn in (1, 6):
            gpu = GPUS[(number + turn) % len(GPUS)]
            composite = COMPOSITES[(number + turn) % len(COMPOSITES)].format(devices, devices // 2)
            several = ("--devices", f"{devices}x{gpu}", *_engine(number + turn))
            name = f"estimate-{model}-{_plain(gpu)}"
            yield name, ("estimate", model, composite, *several)
    yield "predict", ("predict",)


def facts(command: tuple[str, ...], names: Names) -> Any:
    """Return what a command prints as JSON, and of `predict` what it writes, without prose.

    Where the command fails, the exit code is recorded too.
    """
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        match command:
            case ("estimate", model, composite, *more):
                spec = place / "spec.toml"
                spec.write_text(f'model = "{model}"\nparallel = "{composite}"\n', encoding="utf-8")
                code, found = _call("estimate", str(spec), *more)
            case ("predict",):
                rows, columns = _rows()
                with (place / "rows.csv").open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([columns, *rows])
                code, _ = _call("predict", str(place / "rows.csv"), "-o", str(place / "out.csv"))
                with (place / "out.csv").open(newline="", encoding="utf-8") as file:
                    found = [_numbers(row, columns) for row in csv.DictReader(file)]
            case _:
                code, found = _call(*command)
    found = recorded(found, names, (command[0],))
    return {"exit": code, "found": found} if code else found


def recorded(value: Any, names: Names, path: tuple[str, ...]) -> Any:
    """Return a JSON value under the names of the golden files, prose replaced by None.

    Prose is any string with a space. A list of nothing else is None as well, and a dict with such
    keys is the list of its values.
    """
    if isinstance(value, dict):
        items = [
            (names.word(key, path), _scaled(recorded(inner, names, (*path, key)), names, key))
            for key, inner in value.items()
        ]
        if any(" " in key for key, _ in items):
            return [inner for _, inner in items]
        if len(dict(items)) < len(items):
            raise ValueError(f"{'/'.join(path)}: two of its keys have one name in renames.toml")
        return dict(items)
    if isinstance(value, list):
        found = [recorded(inner, names, path) for inner in value]
        pairs = zip(value, found, strict=True)
        prose = [isinstance(inner, str) and old is None for inner, old in pairs]
        return None if prose and all(prose) else found
    if isinstance(value, str):
        old = names.word(value, path)
        return None if " " in old else old
    return value


def _scaled(value: Any, names: Names, key: str) -> Any:
    """Return the numbers of a value in the unit that the golden files have."""
    if key not in names.scales:
        return value
    if isinstance(value, dict):
        return {name: _scaled(inner, names, key) for name, inner in value.items()}
    if isinstance(value, list):
        return [_scaled(inner, names, key) for inner in value]
    return None if value is None else value / names.scales[key]


def _call(*arguments: str) -> tuple[int, Any]:
    """Return the exit code of a command and the JSON that it prints."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        code = run(group, [*arguments, "--json"])
    return code, json.loads(out.getvalue())


def _engine(number: int) -> tuple[str, ...]:
    engine = ENGINES[number % len(ENGINES)]
    return ("--engine", engine) if engine else ()


def _plain(gpu: str) -> str:
    return gpu.lower().replace(" ", "-")


def _rows() -> tuple[list[list[Any]], list[str]]:
    """Return the rows to predict, every model on every GPU, and their columns."""
    columns = ["model", "weight_dtype", "gpu", "n_gpus", "tp", "pp", "batch", "concurrency", "isl",
               "osl", "metric", "unit", "framework"]  # fmt: skip
    rows = []
    for number, (model, gpu) in enumerate(product(MODELS, GPUS)):
        turn = number + number // len(GPUS)
        devices, (metric, unit) = MODELS[model], METRICS[turn % len(METRICS)]
        pp = 2 if turn % 3 == 0 else 1
        batch, concurrency = ((8, ""), ("", 32), ("", "inf"))[turn % 3]
        dtype, engine = ("bf16", "fp8", "int4")[turn % 3], ENGINES[turn % len(ENGINES)] or ""
        rows.append([model, dtype, gpu, devices, devices // pp, pp, batch, concurrency,
                     (128, 1000, 2500)[number % 3], 200, metric, unit, engine])  # fmt: skip
    return rows, columns


def _numbers(row: dict[str, str], given: list[str]) -> dict[str, Any]:
    """Return the columns that were added, numbers as such."""
    added = {key: text for key, text in row.items() if key not in given}
    return {key: _number(text) for key, text in added.items()}


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
