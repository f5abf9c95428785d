"""Models of Hugging Face, loaded from their configurations without weights."""

from parframe.loading.huggingface.configuration import build_config
from parframe.loading.huggingface.loader import load_config
from parframe.loading.huggingface.meta_model import build_model
from parframe.loading.huggingface.model_class import find_model_class

__all__ = ["build_config", "build_model", "find_model_class", "load_config"]
