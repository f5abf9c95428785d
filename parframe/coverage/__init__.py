"""Survey of the causal language models of transformers: which load, and which plans verify."""

from parframe.coverage.outcome import COMPOSITES, Outcome, Verdict
from parframe.coverage.page import render_page
from parframe.coverage.survey import Limits, survey
from parframe.coverage.totals import compute_totals

__all__ = ["COMPOSITES", "Limits", "Outcome", "Verdict", "compute_totals", "render_page", "survey"]
