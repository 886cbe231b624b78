"""The processes, ports and folders of the servers that tests start."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# PostgreSQL and PgBouncer refuse to run as root.
OWNER = pwd.getpwnam("nobody") if os.geteuid() == 0 else None

START_SECONDS = 60.0
STOP_SECONDS = 30.0

# Data in memory: a database is some 300 files, and ext4 takes long to make files where many were just removed.
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 4 << 30


def roomy_memory() -> Path | None:
    """The folder in memory, where there is one with room for the data of every server at once; containers' is small."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES and _free_memory() >= MEMORY_BYTES else None


def _free_memory() -> int:
    """The bytes of memory that programs can still have."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.M)
    return int(found[1]) * 1024 if found else 0


def make_folder(prefix: str, parent: Path | None = None) -> Path:
    """A temp folder that belongs to whom `popen` runs processes as, in the usual place if not in `parent`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    folder.chmod(0o755)
    if OWNER:
        os.chown(folder, OWNER.pw_uid, OWNER.pw_gid)
    return folder


def popen(command: Sequence[object], folder: Path, stdin: int, output: int) -> subprocess.Popen[bytes]:
    """Start a server's process in a folder, out of reach of Ctrl-C, which is for pytest; as `nobody` if we are root."""
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        user=OWNER.pw_uid if OWNER else None,
        group=OWNER.pw_gid if OWNER else None,
        extra_groups=[] if OWNER else None,
        start_new_session=True,
    )


def free_port() -> int:
    """A port that nobody listens on, below those that the system gives out, so that it stays free over a restart."""
    for _ in range(1000):
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port between 20000 and 32000")


def listens(port: int) -> bool:
    """Whether a server takes connections on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def await_end(pid: int) -> None:
    """Wait until a process that is no child of ours is gone, as a zombie too."""
    deadline = time.monotonic() + STOP_SECONDS
    status = Path(f"/proc/{pid}/stat")
    while time.monotonic() < deadline:
        try:
            if status.read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.005)
    raise TimeoutError(f"process {pid} is still there {STOP_SECONDS:g} s after SIGKILL")
