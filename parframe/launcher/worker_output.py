"""Output of the workers, forwarded to this process's stderr line by line with the rank."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import threading

_CHUNK = 1 << 16
_TAIL = 1 << 14  # bytes kept of each rank's output
_CLOSE_TIMEOUT = 1.0


class OutputRelay:
    """Pipes from all workers, read by a thread until all workers have exited."""

    def __init__(self, world: int) -> None:
        pipes = [os.pipe() for _ in range(world)]
        self._read_ends = [reading for reading, _ in pipes]
        self.write_ends = [writing for _, writing in pipes]
        """Pipe ends that the workers inherit; closed here after the fork."""
        self._last = [b""] * world
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="parframe-output", daemon=True)

    def start(self) -> None:
        """Close the write ends in this process, and begin to read."""
        for descriptor in self.write_ends:
            os.close(descriptor)
        self._thread.start()

    def last_output(self, rank: int) -> str:
        """Return the end of the output of a worker."""
        return self._last[rank].decode(errors="replace")

    def close(self) -> None:
        """Read the remaining output of workers that have exited, and stop."""
        self._thread.join(_CLOSE_TIMEOUT)
        self._stop = True  # another process, such as a child of a worker, still has a pipe open

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, descriptor in enumerate(self._read_ends):
                selector.register(descriptor, selectors.EVENT_READ, rank)
            partial = [b""] * len(self._read_ends)
            while selector.get_map() and not self._stop:
                for key, _ in selector.select(_CLOSE_TIMEOUT / 2):
                    chunk = os.read(key.fd, _CHUNK)
                    if not chunk:
                        selector.unregister(key.fd)
                    partial[key.data] = self._forward(key.data, partial[key.data], chunk)
        for descriptor in self._read_ends:
            os.close(descriptor)

    def _forward(self, rank: int, partial: bytes, chunk: bytes) -> bytes:
        """Write the complete lines, and return the incomplete last one."""
        self._last[rank] = (self._last[rank] + chunk)[-_TAIL:]
        *lines, partial = (partial + chunk).split(b"\n")
        if not chunk and partial:
            lines, partial = [*lines, partial], b""
        if lines and sys.stderr is not None:
            text = "".join(f"[rank {rank}] {line.decode(errors='replace')}\n" for line in lines)
            with contextlib.suppress(OSError, ValueError):  # the reader of stderr is gone
                sys.stderr.write(text)
                sys.stderr.flush()
        return partial
