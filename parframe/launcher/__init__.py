"""Launcher of the processes of one run on one node: it starts, watches and ends them together."""

from parframe.launcher.failures import Failure, RunError
from parframe.launcher.heartbeat import Progress
from parframe.launcher.launch import Event, Launch, active_launches
from parframe.launcher.worker import Task, Worker

__all__ = [
    "Event",
    "Failure",
    "Launch",
    "Progress",
    "RunError",
    "Task",
    "Worker",
    "active_launches",
]
