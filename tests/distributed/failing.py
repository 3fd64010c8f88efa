"""A follower for tests: it answers every message with its length, and fails as it is told."""

from __future__ import annotations

import os
import socket
import sys

from vlmc.distributed.channel import Channel, to_json
from vlmc.distributed.followers import Reply
from vlmc.files.strict_json import parse_json

ECHO, FAIL, EXIT = 1, 2, 3


def main() -> None:
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    settings = parse_json(channel.receive()[1])
    while True:
        try:
            kind, payload = channel.receive()
        except EOFError:
            return
        if kind == ECHO:
            channel.send(Reply.DONE, to_json({"name": settings["name"], "bytes": len(payload)}))
        elif kind == FAIL:
            values = {"type": "IntegrityError", "message": "the file is damaged"}
            channel.send(Reply.FAILED, to_json(values))
        else:
            os._exit(7)


if __name__ == "__main__":
    main()
