"""The finished partition: a program for every device, its files, its weights."""

from parframe.plan.plan import Plan
from parframe.plan.plan_json import plan_digest
from parframe.plan.plan_reader import load_plan
from parframe.plan.program import COMMUNICATION, Device, Layout, Note, Part, Program, group_axes
from parframe.plan.slices import Slices
from parframe.plan.validation import validate_plan

__all__ = [
    "COMMUNICATION",
    "Device",
    "Layout",
    "Note",
    "Part",
    "Plan",
    "Program",
    "Slices",
    "group_axes",
    "load_plan",
    "plan_digest",
    "validate_plan",
]
