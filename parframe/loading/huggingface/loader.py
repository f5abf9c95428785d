"""Load a model of Hugging Face from its configuration: built without weights, then exported."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch

from parframe.errors import ParframeError, did_you_mean
from parframe.graph import OperatorGraph, Parameter
from parframe.loading.config_file import check_config, read_config
from parframe.loading.experts import UnsupportedExpertsError, find_forms
from parframe.loading.explicit_casts import doubled, is_single, narrowed
from parframe.loading.export import Dynamic, aliases, example_axes, export
from parframe.loading.exported_program import HollowConstantError, encode
from parframe.loading.flat_graph import Program
from parframe.loading.huggingface.computed_buffers import computed_buffers, hollow
from parframe.loading.huggingface.layer_stacks import stacks, truncate
from parframe.loading.huggingface.recurrence_kernels import replaced_kernels
from parframe.loading.huggingface.registries import NAME, Usage, registered
from parframe.loading.huggingface.repeated_layers import UnequalLayersError, repeat
from parframe.loading.module import folded

transformers: Any = importlib.import_module("transformers")

_MOST_MODULES = 400_000

POSITIONS = "position_ids"
"""The argument in which models of transformers take the positions of tokens."""


def load_folder(
    folder: Path,
    inputs: Mapping[str, Any] | None,
    dynamic: Dynamic | None,
    positions: bool | None = False,
    dtype: str | None = None,
) -> OperatorGraph:
    """Load the model that a folder's config.json describes; its weights are not read.

    Raises
    ------
    ParframeError
        If the configuration is not one, or the model cannot be exported.
    """
    content = read_config(folder)
    return load_config(
        content, inputs, dynamic, source=str(folder), positions=positions, dtype=dtype
    )


def load_config(
    config: Any,
    inputs: Mapping[str, Any] | None = None,
    dynamic: Dynamic | None = None,
    source: str = "",
    shorten: bool = True,
    positions: bool | None = False,
    dtype: str | None = None,
) -> OperatorGraph:
    """Load the model that a configuration describes.

    Parameters
    ----------
    config
        A configuration of transformers, or its content as a dict.
    inputs, dynamic
        As for `parframe.load`; without them the model takes its main input only.
    source
        Where the configuration came from.
    shorten
        Whether equal layers are exported only once.
    positions, dtype
        As for `parframe.load`.

    Raises
    ------
    ParframeError
        If the configuration is not sane, or the model cannot be exported.
    """
    if isinstance(config, dict):
        config = build_config(check_config(config, source or "config"))
    config = copy.deepcopy(config)
    for part in _configs(config):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    if dtype is not None:
        _narrow(config, getattr(torch, dtype))
    kind = model_class(config)
    if positions:
        _check_positions(kind, inputs)
    positions = _takes_positions(kind, inputs) if positions is None else positions
    record = _record({**config.to_diff_dict(), "architectures": [kind.__name__]})
    failures: list[ParframeError] = []
    for implementation in _implementations(kind):
        try:
            graph = _graph(kind, config, implementation, inputs, dynamic, shorten, positions)
        except ParframeError as error:
            failures.append(error)
        else:
            return attrs.evolve(graph, source=source or kind.__name__, config=record)
    raise failures[-1]


def _graph(
    kind: Any,
    config: Any,
    implementation: str,
    inputs: Mapping[str, Any] | None,
    dynamic: Dynamic | None,
    shorten: bool,
    positions: bool,
) -> OperatorGraph:
    """Export the model with as few layers as will do, or with all of them where that fails."""
    with registered(packed=inputs is not None) as usage:
        model = _with_experts(build(kind, config, implementation), usage)
        model.register_forward_pre_hook(partial(_note_positions, usage), with_kwargs=True)
        data = computed_buffers(model)
        short = stacks(model, _configs(config)) if shorten else []
        names = aliases(model)
        truncate(model, short)
        try:
            with replaced_kernels(model):
                graph = folded(_export(model, data, inputs, dynamic, positions))
            if implementation == NAME and usage.made and not usage.used:
                raise ParframeError(
                    "load", kind.__name__, "its masks reach no attention", "report the model"
                )
            for stack in short:
                graph = repeat(graph, stack, partial(_parameter_like, data=data, names=names))
        except UnequalLayersError:
            return _graph(kind, config, implementation, inputs, dynamic, False, positions)
        except ParframeError as error:
            if not short or not isinstance(error.__cause__, IndexError):
                raise  # otherwise the model looks for a layer that is not there
            return _graph(kind, config, implementation, inputs, dynamic, False, positions)
    return graph


def _with_experts(model: Any, usage: Usage) -> Any:
    """The model, its experts computed by parframe's operator where that can do it."""
    try:
        usage.forms.update(find_forms(model))
    except UnsupportedExpertsError:
        return model
    for part in model.modules():
        config = getattr(part, "config", None)
        if id(part) in usage.forms and config is not None:
            config._experts_implementation_internal = NAME
    return model


def _record(value: Any) -> Any:
    """A configuration as JSON has it."""
    if isinstance(value, Mapping):
        return {str(key): _record(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_record(part) for part in value]
    plain = isinstance(value, str | int | None) or (
        isinstance(value, float) and math.isfinite(value)
    )
    return value if plain else str(value)


def _parameter_like(
    name: str,
    like: Parameter,
    data: Mapping[str, torch.Tensor],
    names: Mapping[str, tuple[str, ...]],
) -> Parameter:
    """The parameter of this name, of the same shape as another layer's."""
    if like.data is not None and name not in data:
        raise UnequalLayersError(f"{name} has no contents")
    content = encode(data[name]) if like.data is not None else None
    return attrs.evolve(like, name=name, data=content, aliases=names.get(name, ()))


def model_class(config: Any) -> Any:
    """The class of transformers that a configuration is of.

    It is the one named in ``architectures``; without that, the first of these that the
    configuration's class has: masked (unless it is a decoder) and causal language models, image
    classifiers, bare models.

    Raises
    ------
    ParframeError
        If transformers has no such class.
    """
    named = (getattr(config, "architectures", None) or [None])[0]
    if named is not None:
        return _named_class(str(named), config)
    masked = () if getattr(config, "is_decoder", False) else ("MODEL_FOR_MASKED_LM_MAPPING",)
    known = next(_known_classes(config, (*masked, *_MAPPINGS)), None)
    if known is not None:
        return known
    raise ParframeError(
        "load",
        type(config).__name__,
        "transformers has no model for this configuration",
        "name its class in `architectures`",
    )


_MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_MAPPING",
)


def _known_classes(config: Any, mappings: Iterable[str]) -> Iterator[Any]:
    """The classes that transformers' mappings have for a configuration."""
    for mapping in mappings:
        known = getattr(transformers, mapping)
        if type(config) in known:
            found = known[type(config)]
            yield from found if isinstance(found, tuple) else (found,)


def _named_class(name: str, config: Any) -> Any:
    found = getattr(transformers, name, None) if name.isidentifier() else None
    right = (
        isinstance(found, type)
        and issubclass(found, transformers.PreTrainedModel)
        and isinstance(config, getattr(found, "config_class", None) or type(config))
    )
    if not right and found not in _known_classes(config, _MAPPINGS):
        raise ParframeError(
            "load",
            f"architectures, {name[:80]!r}",
            f"not a model of transformers for a {type(config).__name__}",
            "update transformers, or build the model yourself and give it with example inputs",
        )
    return found


def build_config(content: dict[str, Any]) -> Any:
    """The configuration that a config.json's content describes.

    Raises
    ------
    ParframeError
        If transformers does not know its ``model_type``, or refuses it.
    """
    known = transformers.CONFIG_MAPPING
    name = content.get("model_type")
    if not isinstance(name, str) or name not in known:
        raise ParframeError(
            "load",
            "model_type",
            f"{str(name)[:60]!r} is not one that transformers knows"
            + (did_you_mean(name, known.keys()) if isinstance(name, str) else ""),
            "update transformers, or build the model yourself and give it with example inputs",
        )
    try:
        return known[name].from_dict(content)
    except Exception as error:
        raise ParframeError(
            "load", f"config of {name}", _first_line(error), "correct the configuration"
        ) from error


def _configs(config: Any) -> list[Any]:
    """A configuration and those within it."""
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", {})]
    return [config, *(part for part in inner if part is not None)]


def _implementations(kind: Any) -> tuple[str, ...]:
    """The attention implementations to try, in order."""
    own = (NAME,) if kind._supports_attention_backend else ()
    return (*own, *(("sdpa",) if kind._supports_sdpa else ()), "eager")


def _export(
    model: Any,
    data: dict[str, torch.Tensor],
    inputs: Mapping[str, Any] | None,
    dynamic: Dynamic | None,
    positions: bool,
) -> Program:
    """Export a model on the meta device, or without memory on the CPU where that is needed.

    A float32 model is left in float64.
    """
    given = _example_inputs(model) if inputs is None else dict(inputs)
    if positions:
        given[POSITIONS] = torch.arange(7).expand(3, 7)
    axes = _axes(model, given, dynamic)
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    constants = {"use_cache": False} if takes_cache else {}
    single = is_single(model)
    if single:
        model.double()
        given, data = doubled(given), doubled(data)
    meta = {name: tensor.to("meta") for name, tensor in given.items()}
    try:
        program = export(model, meta, axes, data, constants)
    except ParframeError as error:
        if not _needs_cpu(error):
            raise
        unknown = hollow(model, data)
        program = export(model, given, axes, data, constants)
        for name in sorted(unknown & program.parameters.keys()):
            raise ParframeError(
                "load",
                name,
                "the model computes this buffer in a way that cannot be followed without weights",
                "build the model yourself and give it with example inputs",
            ) from None
    if positions and POSITIONS in program.inputs:
        counted = attrs.evolve(program.inputs[POSITIONS], counted=True)
        program = attrs.evolve(program, inputs={**program.inputs, POSITIONS: counted})
    return narrowed(program) if single else program


def _check_positions(kind: Any, inputs: Mapping[str, Any] | None) -> None:
    """Refuse to make positions an input of a model that takes none."""
    if _takes_positions(kind, inputs):
        return
    takes = POSITIONS in inspect.signature(kind.forward).parameters
    raise ParframeError(
        "load",
        kind.__name__,
        "its positions cannot be an input"
        + (" beside inputs that are given" if takes else f": its code takes no {POSITIONS}"),
        "load it without `inputs`" if takes else "load it without `positions`",
    )


def _narrow(config: Any, dtype: torch.dtype) -> None:
    """Let a configuration say this dtype, unless what it says is no wider."""
    own = getattr(config, "dtype", None) or torch.float32
    if torch.promote_types(own, dtype) == dtype:
        return
    for part in _configs(config):
        part.dtype = dtype


def _takes_positions(kind: Any, inputs: Mapping[str, Any] | None) -> bool:
    """Whether positions can be an input of a model beside its tokens."""
    takes = POSITIONS in inspect.signature(kind.forward).parameters
    return takes and getattr(kind, "main_input_name", None) == "input_ids" and inputs is None


def _note_positions(usage: Usage, model: Any, args: Any, given: Mapping[str, Any]) -> None:
    usage.positions = given.get(POSITIONS)


def _needs_cpu(error: ParframeError) -> bool:
    """Whether an export failed because the model's own tensors are not on the meta device."""
    return isinstance(error, HollowConstantError) or "meta" in error.what


def build(kind: Any, config: Any, implementation: str) -> Any:
    """The model on the meta device, its attention of this implementation.

    Raises
    ------
    ParframeError
        If the configuration does not make a model.
    """
    config = copy.deepcopy(config)
    count = 0

    def limit(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > _MOST_MODULES:
            raise ValueError(f"the model has more than {_MOST_MODULES} modules")

    hook = torch.nn.modules.module.register_module_module_registration_hook(limit)
    try:
        with torch.device("meta"):
            return kind._from_config(
                config, attn_implementation=implementation, experts_implementation="batched_mm"
            ).eval()
    except Exception as error:
        raise ParframeError(
            "load",
            kind.__name__,
            f"its configuration does not make a model ({_first_line(error)})",
            "correct the configuration",
        ) from error
    finally:
        hook.remove()


def _example_inputs(model: Any) -> dict[str, torch.Tensor]:
    """The model's main input, of example sizes."""
    name = model.main_input_name
    if name == "input_ids":
        return {name: torch.zeros(3, 7, dtype=torch.long)}
    if name == "pixel_values":
        size = getattr(model.config, "image_size", None)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        if isinstance(height, int) and isinstance(width, int):
            channels = getattr(model.config, "num_channels", 3)
            return {name: torch.zeros(3, channels, height, width, dtype=model.dtype)}
    raise ParframeError(
        "input",
        type(model).__name__,
        f"no example of its input {name!r} can be made from its configuration",
        "give `inputs` and `dynamic`",
    )


def _axes(
    model: Any, inputs: Mapping[str, torch.Tensor], dynamic: Dynamic | None
) -> dict[str, tuple[str, ...]]:
    """Names of the inputs' axes: the first is the batch, the second of token ids the sequence."""
    axes = example_axes(model, inputs, dynamic)
    if dynamic is not None:
        return axes
    lengths = {tensor.shape[1] for tensor in inputs.values() if _is_tokens(tensor)}
    return {
        name: (*names[:1], "sequence") if _is_tokens(inputs[name]) and len(lengths) == 1 else names
        for name, names in axes.items()
    }


def _is_tokens(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 2 and not tensor.dtype.is_floating_point


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no reason given'}"
