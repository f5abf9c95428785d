"""A spec: which model, which strategies on which devices, and what to do with the result."""

from parframe.spec.keys import KEYS, DemoModel, Key
from parframe.spec.spec import Run, Spec, Verify
from parframe.spec.stage_list import Stage

__all__ = ["KEYS", "DemoModel", "Key", "Run", "Spec", "Stage", "Verify"]
