"""Executors: they run plans in real processes and complete requests."""

from parframe.executors.generate import generate
from parframe.executors.run_prompts import run

__all__ = ["generate", "run"]
