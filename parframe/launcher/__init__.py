"""Processes of one run on this host: started together, watched, and ended together."""

from parframe.launcher.failures import Failure, RunError
from parframe.launcher.heartbeat import Progress
from parframe.launcher.launch import Event, Launch, running
from parframe.launcher.worker import Task, Worker

__all__ = ["Event", "Failure", "Launch", "Progress", "RunError", "Task", "Worker", "running"]
