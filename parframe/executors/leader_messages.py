"""Messages of the replicas' leaders to rank 0, as JSON in tensors: nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from queue import SimpleQueue
from threading import Thread
from typing import Any

import torch
import torch.distributed as dist

from parframe.errors import ParframeError

LeaderMessage = Sequence[Mapping[str, Any]]
"""Tokens and results as JSON objects."""

MessageQueue = SimpleQueue[LeaderMessage | BaseException]
"""Messages on rank 0, in order for each leader."""

END: LeaderMessage = ()
"""Last message of a leader."""


class LeaderMessages:
    """Channel from the leaders to rank 0; every rank of the world creates one at the same time.

    Parameters
    ----------
    rank
        Rank of this process.
    leaders
        Ranks other than 0 that send messages, equal on every rank.
    queue
        Queue of the received messages; on rank 0 those of all leaders.
    timeout
        Seconds that rank 0 waits for the next message of a leader.
    """

    def __init__(
        self, rank: int, leaders: Sequence[int], queue: MessageQueue, timeout: float
    ) -> None:
        self._queue = queue
        self._threads: list[Thread] = []
        self._pending: list[tuple[torch.Tensor, Any]] = []
        self._is_leader = rank in leaders
        self._group: Any = None
        if not leaders:
            return
        # all ranks must call new_group, since it counts the groups
        limit = timedelta(seconds=timeout)
        group = dist.new_group([0, *leaders], timeout=limit, backend="gloo")
        if rank == 0 or self._is_leader:
            self._group = group
        if rank == 0:
            for leader in leaders:
                thread = Thread(target=self._receive, args=(leader,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def send(self, message: LeaderMessage) -> None:
        """Send a message without waiting; an empty one is not sent."""
        if not message:
            return
        if self._is_leader:
            self._send_bytes(json.dumps(message).encode())
        else:
            self._queue.put(message)

    def close(self) -> None:
        """Send the end of the messages, and wait until all messages have arrived."""
        if self._is_leader:
            self._send_bytes(b"")
            for _, work in self._pending:
                work.wait()
        for thread in self._threads:
            thread.join()
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def _send_bytes(self, text: bytes) -> None:
        self._pending = [(sent, work) for sent, work in self._pending if not work.is_completed()]
        parts = [torch.tensor([len(text)])]
        if text:
            parts.append(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        for part in parts:
            self._pending.append((part, dist.isend(part, 0, group=self._group)))

    def _receive(self, leader: int) -> None:
        """Receive the messages of one leader until their end."""
        length = torch.zeros(1, dtype=torch.int64)
        try:
            while True:
                dist.recv(length, leader, group=self._group)
                if not length.item():
                    self._queue.put(END)
                    return
                text = torch.empty(int(length.item()), dtype=torch.uint8)
                dist.recv(text, leader, group=self._group)
                self._queue.put(json.loads(bytes(text.tolist())))
        except RuntimeError as error:
            first = next(iter(str(error).splitlines()), "connection lost")
            failure = ParframeError("run", f"rank {leader}", first, "read the error of that rank")
            failure.__cause__ = error
            self._queue.put(failure)
