"""A follower for tests: it ends when rank 0 begins to wait for it in the group."""

from __future__ import annotations

import os
import socket
import sys

from vlmc.distributed.channel import Channel, to_json
from vlmc.distributed.followers import Reply

if __name__ == "__main__":
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    channel.receive()
    channel.send(Reply.DONE, to_json({}))
    os._exit(9)
