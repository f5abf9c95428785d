"""Which of transformers' causal language models load, and which plans of them are proved."""

from parframe.coverage.outcome import COMPOSITES, Outcome, Verdict
from parframe.coverage.survey import Limits, survey
from parframe.coverage.table import page, totals

__all__ = ["COMPOSITES", "Limits", "Outcome", "Verdict", "page", "survey", "totals"]
