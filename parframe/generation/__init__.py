"""Text generation: requests, their schedule, the steps of a batch, sampling and text."""

from parframe.generation.outcomes import Failure, Result, Token
from parframe.generation.request_tracker import RequestTracker
from parframe.generation.requests import Request, Sampling
from parframe.generation.scheduler import Batch
from parframe.generation.settings import Settings

__all__ = [
    "Batch",
    "Failure",
    "Request",
    "RequestTracker",
    "Result",
    "Sampling",
    "Settings",
    "Token",
]
