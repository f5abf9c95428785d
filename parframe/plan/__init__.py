"""The finished partition: a program for every device, its files, its weights."""

from parframe.plan.plan import Plan
from parframe.plan.plan_json import plan_digest
from parframe.plan.plan_reader import load_plan
from parframe.plan.program import Device, Layout, Note, Part, Program, group_axes
from parframe.plan.slices import Slices
from parframe.plan.validation import validate_plan
from parframe.rules.communication import COMMUNICATION_OPERATORS
from parframe.rules.table import communicates

__all__ = [
    "COMMUNICATION_OPERATORS",
    "Device",
    "Layout",
    "Note",
    "Part",
    "Plan",
    "Program",
    "Slices",
    "communicates",
    "group_axes",
    "load_plan",
    "plan_digest",
    "validate_plan",
]
