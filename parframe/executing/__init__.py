"""Running plans for real: executors by name, and what they run on every rank."""

from parframe.executing.generate import generate
from parframe.executing.at_once import run

__all__ = ["generate", "run"]
