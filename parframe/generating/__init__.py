"""Generation of text apart from any model: requests, their schedule, sampling, text."""

from parframe.generating.requests import Failure, Request, Result, Sampling, Token
from parframe.generating.schedule import Batch, Ledger
from parframe.generating.settings import Settings

__all__ = ["Batch", "Failure", "Ledger", "Request", "Result", "Sampling", "Settings", "Token"]
