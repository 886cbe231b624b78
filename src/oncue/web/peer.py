"""Whose process is at the other end of a connection within this machine, where the system tells."""

from __future__ import annotations

import os
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
Address = tuple[str, int | None]


def owners(client: Address, server: Address) -> set[int]:
    """Return the user ids of those who hold the client's end of a connection over loopback.

    Empty where nobody can tell: Linux lists its sockets in /proc/net, other systems don't.
    """
    if client[1] is None or server[1] is None:
        return set()
    theirs, ours = f":{client[1]:04X}", f":{server[1]:04X}"
    found = set()
    for table in _TABLES:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, _, _, _, _, owner, *_ = line.split()
            if local.endswith(theirs) and remote.endswith(ours):
                found.add(int(owner))
    return found


def is_ours(client: Address, server: Address) -> bool:
    """Whether the client's end belongs to the user who runs this process, or to root, as far as anybody can tell.

    A proxy runs as a user of its own: those whom it lets through are not at this machine.
    """
    return owners(client, server) <= {0, os.getuid()} if hasattr(os, "getuid") else True
