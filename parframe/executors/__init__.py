"""Running plans for real: executors by name, and what they run on every rank."""

from parframe.executors.generate import generate
from parframe.executors.run_prompts import run

__all__ = ["generate", "run"]
