"""Survey of the causal language models of transformers: which load, and which plans verify."""

from parframe.coverage.outcome import COMPOSITES, Outcome, Verdict, compute_totals
from parframe.coverage.page import render_page
from parframe.coverage.survey import Limits, survey

__all__ = ["COMPOSITES", "Limits", "Outcome", "Verdict", "compute_totals", "render_page", "survey"]
