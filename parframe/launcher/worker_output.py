"""What workers write: passed on to this process's stderr line by line, each with its rank."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading

_CHUNK = 1 << 16
_KEPT = 1 << 14  # bytes of each rank's last words
_ENDING = 1.0


class Relay:
    """Pipes from all workers, read by a thread until all of them have ended.

    Parameters
    ----------
    world
        How many workers.
    """

    def __init__(self, world: int) -> None:
        pipes = [os.pipe() for _ in range(world)]
        self._reading = [reading for reading, _ in pipes]
        self.writing = [writing for _, writing in pipes]
        """The ends that the workers inherit; to be closed here once they have."""
        self._last = [b""] * world
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="parframe-output", daemon=True)

    def start(self) -> None:
        """Let the workers alone hold the writing ends, and begin to read."""
        for descriptor in self.writing:
            os.close(descriptor)
        self._thread.start()

    def last_words(self, rank: int) -> str:
        """The end of what a worker wrote."""
        return self._last[rank].decode(errors="replace")

    def close(self) -> None:
        """Read what is left of workers that are gone, and stop."""
        self._thread.join(_ENDING)
        self._stop = True  # somebody else still holds a pipe, such as a child of a worker

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, descriptor in enumerate(self._reading):
                selector.register(descriptor, selectors.EVENT_READ, rank)
            begun = [b""] * len(self._reading)
            while selector.get_map() and not self._stop:
                for key, _ in selector.select(_ENDING / 2):
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fd)
                    begun[key.data] = self._pass_on(key.data, begun[key.data], chunk)
        for descriptor in self._reading:
            os.close(descriptor)

    def _pass_on(self, rank: int, begun: bytes, chunk: bytes) -> bytes:
        """Write the lines that are whole, all that is left at the end; what is begun comes back."""
        self._last[rank] = (self._last[rank] + chunk)[-_KEPT:]
        *lines, begun = (begun + chunk).split(b"\n")
        if not chunk and begun:
            lines, begun = [*lines, begun], b""
        if lines and sys.stderr is not None:
            text = "".join(f"[rank {rank}] {line.decode(errors='replace')}\n" for line in lines)
            with contextlib.suppress(OSError, ValueError):  # nobody reads it
                sys.stderr.write(text)
                sys.stderr.flush()
        return begun
