"""What leaders of replicas tell rank 0, as JSON in tensors: nothing is unpickled."""

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

Letter = Sequence[Mapping[str, Any]]
"""Tokens and results, as facts."""

Letters = SimpleQueue[Letter | BaseException]
"""What comes to rank 0, in order for each sender."""

END: Letter = ()
"""The last letter of a sender."""


class Office:
    """Takes letters of a rank to rank 0; every rank of the world opens one at the same time.

    Parameters
    ----------
    rank
        Which rank it is.
    senders
        The ranks other than 0 that send letters, the same on every rank.
    letters
        Where letters come in; on rank 0 those of all.
    timeout
        How many seconds rank 0 waits for the next letter of a sender.
    """

    def __init__(self, rank: int, senders: Sequence[int], letters: Letters, timeout: float) -> None:
        self._letters = letters
        self._receiving: list[Thread] = []
        self._sending: list[tuple[torch.Tensor, Any]] = []
        self._sends = rank in senders
        self._group: Any = None
        if not senders:
            return
        # all ranks take part, since a group's name is counted
        limit = timedelta(seconds=timeout)
        group = dist.new_group([0, *senders], timeout=limit, backend="gloo")
        if rank == 0 or self._sends:
            self._group = group
        if rank == 0:
            for sender in senders:
                thread = Thread(target=self._receive, args=(sender,), daemon=True)
                thread.start()
                self._receiving.append(thread)

    def post(self, letter: Letter) -> None:
        """Send a letter, without waiting; an empty one says nothing."""
        if not letter:
            return
        if self._sends:
            self._send(json.dumps(letter).encode())
        else:
            self._letters.put(letter)

    def close(self) -> None:
        """Say that it was all, and wait until all letters have arrived."""
        if self._sends:
            self._send(b"")
            for _, work in self._sending:
                work.wait()
        for thread in self._receiving:
            thread.join()
        if self._group is not None:
            dist.destroy_process_group(self._group)

    def _send(self, text: bytes) -> None:
        self._sending = [(own, work) for own, work in self._sending if not work.is_completed()]
        parts = [torch.tensor([len(text)])]
        if text:
            parts.append(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        for part in parts:
            self._sending.append((part, dist.isend(part, 0, group=self._group)))

    def _receive(self, sender: int) -> None:
        """Take letters of one sender, until it says that it was all."""
        length = torch.zeros(1, dtype=torch.int64)
        try:
            while True:
                dist.recv(length, sender, group=self._group)
                if not length.item():
                    self._letters.put(END)
                    return
                text = torch.empty(int(length.item()), dtype=torch.uint8)
                dist.recv(text, sender, group=self._group)
                self._letters.put(json.loads(bytes(text.tolist())))
        except RuntimeError as error:
            first = next(iter(str(error).splitlines()), "it was lost")
            found = ParframeError("run", f"rank {sender}", first, "see what it says itself")
            found.__cause__ = error
            self._letters.put(found)
