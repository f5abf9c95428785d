"""Channel between the launcher and a process: length-prefixed JSON messages over a socket."""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

Message = dict[str, Any]

_LENGTH = struct.Struct("<I")
_CHUNK = 1 << 16


class Channel:
    """One end of a connection.

    Parameters
    ----------
    connection
        Connected stream socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._received = bytearray()
        self._sending = threading.Lock()
        self.closed = False

    def fileno(self) -> int:
        """Return the file descriptor, for selectors."""
        return self.connection.fileno()

    def send(self, message: Message) -> None:
        """Send one message; raise OSError if the other end is closed."""
        text = json.dumps(message).encode()
        with self._sending:
            self.connection.sendall(_LENGTH.pack(len(text)) + text)

    def receive(self, timeout: float | None = None) -> Message | None:
        """Wait for the next message; return None after the timeout or when closed."""
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        while (message := self._next_message()) is None and not self.closed:
            if not poller.poll(None if timeout is None else timeout * 1000):
                return None
            self._read_chunk()
        return message

    def receive_available(self) -> Iterator[Message]:
        """Yield the messages that have arrived, without waiting."""
        while self._read_chunk():
            pass
        while (message := self._next_message()) is not None:
            yield message

    def close(self) -> None:
        """Close this end."""
        self.closed = True
        self.connection.close()

    def _read_chunk(self) -> bool:
        """Read the available bytes, and return whether there may be more."""
        try:
            chunk = self.connection.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        self.closed = self.closed or not chunk
        self._received += chunk
        return bool(chunk)

    def _next_message(self) -> Message | None:
        if len(self._received) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._received)[0]
        if len(self._received) < end:
            return None
        text = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        message: Message = json.loads(text)
        return message
