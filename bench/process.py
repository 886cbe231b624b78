"""Programs under measurement: each in a process group of its own, read from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
_POLL = 0.02


class Program:
    """A started program and all processes that it starts."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> None:
        self.started_at = time.time()
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=cwd,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._log = log

    def check(self) -> None:
        """Raise RuntimeError with the end of its log if it has ended by itself."""
        if self._process.poll() is not None:
            tail = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the program ended by itself with {self._process.returncode}:\n{tail}")

    def says(self, pattern: str, cap: float = 60.0) -> re.Match[str]:
        """Wait until something in its log matches, and return that."""

        def look() -> re.Match[str] | None:
            return re.search(pattern, self._log.read_text(errors="replace"))

        if wait_for(lambda: look() is not None, [self], cap) and (found := look()):
            return found
        raise RuntimeError(f"{pattern!r} is not in {self._log} after {cap:.0f} s")

    def _pids(self) -> list[int]:
        pids = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            fields = stat_fields(int(entry.name))
            if fields and int(fields[2]) == self._process.pid:
                pids.append(int(entry.name))
        return pids

    def cpu_seconds(self) -> float:
        """User and system time of all its living processes."""
        total = 0
        for pid in self._pids():
            fields = stat_fields(pid)
            if fields:
                total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def peak_memory_mb(self) -> float:
        """Peak resident memory (VmHWM), summed over its living processes."""
        total = 0
        for pid in self._pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
        return total / 1024

    def kill(self) -> None:
        """SIGKILL for the whole group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def terminate(self) -> None:
        """SIGTERM for the main process."""
        self._process.terminate()

    def stop(self, patience: float = 10.0) -> None:
        """SIGTERM for the main process, then SIGKILL for whatever of the group is left."""
        if self._process.poll() is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        self.kill()


def stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the name: [0] the state, [2] the process group, [11] to [14] ticks of CPU."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


def wait_for(until: Callable[[], bool], programs: Sequence[Program], cap: float) -> bool:
    """Whether ``until`` held within ``cap`` seconds; RuntimeError if a program ended meanwhile."""
    end = time.monotonic() + cap
    while not until():
        for program in programs:
            program.check()
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True


class Valkey:
    """A Valkey server on a free port of this machine, with a log file synced each second."""

    def __init__(self, binary: str, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        directory.mkdir(parents=True, exist_ok=True)
        command = [binary, "--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "everysec"]
        self._program = Program(command, dict(os.environ), directory / "valkey.log", directory)
        self.url = f"redis://127.0.0.1:{self._port}"
        for _ in range(200):
            self._program.check()
            try:
                self.command("PING")
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the Valkey server did not answer within 10 s")

    def command(self, *words: str) -> str:
        """Send one command and return the raw text of its reply (a simple or bulk string)."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=30) as connection:
            file = connection.makefile("rwb")
            file.write((f"*{len(words)}\r\n" + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)).encode())
            file.flush()
            head = file.readline().decode().strip()
            return file.read(int(head[1:])).decode() if head.startswith("$") else head

    def cpu_seconds(self) -> float:
        """User and system time since the start."""
        return self._program.cpu_seconds()

    def calls(self) -> dict[str, int]:
        """Commands carried out since the start, by name, without our own INFO."""
        counts = {}
        for line in self.command("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_") and not line.startswith("cmdstat_info"):
                name, values = line.removeprefix("cmdstat_").split(":", 1)
                counts[name] = int(values.split(",")[0].removeprefix("calls="))
        return counts

    def stop(self) -> None:
        self._program.stop()
