"""Whose process is at the other end of a connection within this machine, where the system tells."""

from __future__ import annotations

import os
import socket
import struct

_SOCK_DIAG, _BY_FAMILY, _REQUEST = 4, 20, 1
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBBBI")
_ANY = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_OWNER = struct.Struct("=I")
# In struct inet_diag_msg of <linux/inet_diag.h>, behind the header: four bytes, the ids of the socket, three numbers.
_OWNER_AT = _HEADER.size + 4 + 48 + 12
Address = tuple[str, int | None]


def owner(client: Address, server: Address) -> int | None:
    """Return the user id of who holds the client's end of a TCP connection; None where the system doesn't tell.

    Linux is asked for that one socket (sock_diag(7)), which takes it some microseconds, where its list in /proc/net may
    take ten milliseconds.
    """
    if client[1] is None or server[1] is None or not hasattr(socket, "AF_NETLINK"):
        return None
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    try:
        places = [socket.inet_pton(family, host).ljust(16, b"\0") for host in (client[0], server[0])]
        asked = _ASKED.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
        asked += struct.pack("!HH", client[1], server[1]) + places[0] + places[1] + _ANY
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG) as link:
            link.settimeout(1)
            link.send(_HEADER.pack(_HEADER.size + len(asked), _BY_FAMILY, _REQUEST, 0, 0) + asked)
            answer = link.recv(4096)
    except OSError:
        return None
    if len(answer) < _OWNER_AT + _OWNER.size or _HEADER.unpack_from(answer)[1] != _BY_FAMILY:
        return None
    found: int = _OWNER.unpack_from(answer, _OWNER_AT)[0]
    return found


def is_ours(client: Address, server: Address) -> bool:
    """Whether the client's end belongs to the user who runs this process, or to root, as far as anybody can tell.

    A proxy runs as a user of its own: those whom it lets through are not at this machine.
    """
    return (found := owner(client, server)) is None or found in (0, os.getuid())
