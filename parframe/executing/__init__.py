"""Running plans for real: executors by name, and what they run on every rank."""

from parframe.executing.at_once import run
from parframe.executing.generate import generate

__all__ = ["generate", "run"]
