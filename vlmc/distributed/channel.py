"""Messages between two processes of one machine: a kind and bytes, in order."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import suppress

_HEAD = struct.Struct("<BQ")


class Channel:
    """One end of a pair of connected sockets. The other process sees its end close when this one
    ends, however it ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send a message; `kind` is 0 to 255.

        Raises:
            OSError: the other process has ended.
        """
        self._socket.sendall(_HEAD.pack(kind, len(payload)) + payload)

    def receive(self) -> tuple[int, bytes]:
        """Wait for a message.

        Raises:
            EOFError: the other process has ended.
        """
        kind, length = _HEAD.unpack(self._read(_HEAD.size))
        return kind, self._read(length)

    def close(self) -> None:
        """Close this end, also while another thread waits for a message."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, length: int) -> bytes:
        found = bytearray(length)
        view, at = memoryview(found), 0
        while at < length:
            try:
                count = self._socket.recv_into(view[at:])
            except OSError as error:
                raise EOFError from error
            if count == 0:
                raise EOFError
            at += count
        return bytes(found)


def to_json(values: object) -> bytes:
    """JSON values as a payload, for `parse_json`."""
    return json.dumps(values).encode()
