"""Processes of one run on this host: started together, watched, and ended together."""

from parframe.launching.failures import Failure, RunError
from parframe.launching.launch import Event, Launch, running
from parframe.launching.records import Progress
from parframe.launching.worker import Task, Worker

__all__ = ["Event", "Failure", "Launch", "Progress", "RunError", "Task", "Worker", "running"]
