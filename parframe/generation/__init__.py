"""Generation of text apart from any model: requests, their schedule, sampling, text."""

from parframe.generation.requests import Failure, Request, Result, Sampling, Token
from parframe.generation.scheduler import Batch, Ledger
from parframe.generation.settings import Settings

__all__ = ["Batch", "Failure", "Ledger", "Request", "Result", "Sampling", "Settings", "Token"]
