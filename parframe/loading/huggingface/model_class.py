"""The class of transformers that a configuration describes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from parframe.errors import ParframeError
from parframe.loading.huggingface.configuration import transformers

_MAPPINGS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_MAPPING",
)


def find_model_class(config: Any) -> Any:
    """Return the class of transformers that a configuration describes.

    It is the class named in ``architectures``. Without a name it is the first that transformers
    maps the configuration to, in this order: masked language models (unless the model is a
    decoder), causal language models, image classifiers, sequence-to-sequence models, base models.

    Raises
    ------
    ParframeError
        If transformers has no such class.
    """
    named = (getattr(config, "architectures", None) or [None])[0]
    if named is not None:
        return _named_class(str(named), config)
    masked = () if getattr(config, "is_decoder", False) else ("MODEL_FOR_MASKED_LM_MAPPING",)
    mapped = next(_mapped_classes(config, (*masked, *_MAPPINGS)), None)
    if mapped is not None:
        return mapped
    raise ParframeError(
        "load",
        type(config).__name__,
        "transformers has no model for this configuration",
        "name the model's class in `architectures`",
    )


def _mapped_classes(config: Any, mappings: Iterable[str]) -> Iterator[Any]:
    """Yield the classes that mappings of transformers have for a configuration."""
    for mapping in mappings:
        classes = getattr(transformers, mapping)
        if type(config) in classes:
            mapped = classes[type(config)]
            yield from mapped if isinstance(mapped, tuple) else (mapped,)


def _named_class(name: str, config: Any) -> Any:
    """Return the class of a name, checked to be one for this configuration."""
    named = getattr(transformers, name, None) if name.isidentifier() else None
    matches = (
        isinstance(named, type)
        and issubclass(named, transformers.PreTrainedModel)
        and isinstance(config, getattr(named, "config_class", None) or type(config))
    )
    if not matches and named not in _mapped_classes(config, _MAPPINGS):
        raise ParframeError(
            "load",
            f"architectures, {name[:80]!r}",
            f"not a model of transformers for a {type(config).__name__}",
            "update transformers, or build the model yourself and load the module with example"
            " inputs",
        )
    return named
