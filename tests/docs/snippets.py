"""Reads the fenced blocks of a Markdown page, with the hidden comments that say how to run them (CONTRIBUTING.md)."""

from __future__ import annotations

import contextlib
import random
import re
import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = frozenset({"python", "bash", "console"})
# Comments that stand for themselves, without a block.
ALONE = frozenset({"postgres", "redis", "node", "stop"})
# Other names of the languages above: a block that used one would quietly not be run.
DISGUISES = frozenset({"", "py", "python3", "pycon", "sh", "shell", "zsh", "shell-session"})

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`]*)$")
_COMMENT = re.compile(r"^<!-- snippet: (?P<verb>\w+)\s*(?P<rest>.*?)(?P<end>-->)?$")

_PORT = re.compile(r"--port[ =](\d{4,5})\b")
_NUMBER = re.compile(r"\b\d{4,5}\b")


class BadPage(Exception):
    """A page whose blocks can't be run as they are written; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Block:
    """One thing to do: a fenced block, a hidden set-up in Python, a service to provide, or what was started to stop."""

    page: Path
    line: int
    language: str
    text: str
    verb: str = "run"  # run | skip | file | starts | setup | stop | postgres | redis | node
    argument: str = ""

    @property
    def where(self) -> str:
        """Page and line, as an editor opens them."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every page that a reader sees."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found += sorted((ROOT / "docs").rglob("*.md"))
    found += sorted(p for p in (ROOT / "examples").rglob("README.md") if not any(q.startswith(".") for q in p.parts))
    return [page for page in found if page.exists()]


def read(page: Path) -> list[Block]:
    """The blocks of a page, in order.

    Raises BadPage for a fence that never ends, an unknown comment, or a language under another name.
    """
    return list(_blocks(page, page.read_text(encoding="utf-8").splitlines()))


def _blocks(page: Path, lines: list[str]) -> Iterator[Block]:
    pending: tuple[str, str] | None = None
    at = 0
    while at < len(lines):
        comment, fence = _COMMENT.match(lines[at]), _FENCE.match(lines[at])
        if comment and comment["verb"] == "setup":
            end = at if comment["end"] else _find(page, lines, at, "-->")
            yield Block(page, at + 1, "python", "\n".join([comment["rest"], *lines[at + 1 : end]]), "setup")
            at = end
        elif comment and comment["verb"] in ALONE and comment["end"] and not comment["rest"]:
            yield Block(page, at + 1, "", "", comment["verb"])
        elif comment:
            if comment["verb"] not in {"file", "starts"} or not comment["end"] or not comment["rest"]:
                raise BadPage(f"{page}:{at + 1}: {lines[at]!r} is not a known comment: see CONTRIBUTING.md")
            pending = (comment["verb"], comment["rest"].strip())
        elif fence:
            end = _find(page, lines, at, fence["indent"] + fence["ticks"])
            text = "\n".join(line.removeprefix(fence["indent"]) for line in lines[at + 1 : end])
            yield _block(page, at + 1, fence["info"], text, pending)
            pending, at = None, end
        at += 1


def _find(page: Path, lines: list[str], start: int, end: str) -> int:
    for at in range(start + 1, len(lines)):
        if lines[at].rstrip() == end:
            return at
    raise BadPage(f"{page}:{start + 1}: this never ends: a line {end!r} is missing")


def _block(page: Path, line: int, info: str, text: str, pending: tuple[str, str] | None) -> Block:
    language, _, rest = info.strip().partition(" ")
    verb, argument = pending or ("run", "")
    if language in DISGUISES:
        raise BadPage(f"{page}:{line}: name the language of this block: python, bash or console are run, text is not")
    if rest.startswith("no-run"):
        verb, argument = "skip", rest.removeprefix("no-run").strip()
        if len(argument.split()) < 2:
            raise BadPage(f"{page}:{line}: say after no-run why this block can't be run")
    if verb == "starts" and language == "python":
        raise BadPage(f"{page}:{line}: 'starts' is for commands, and this block is Python")
    if verb == "run" and language not in RUN:
        verb = "skip"
    return Block(page, line, language, text, verb, argument)


def with_free_ports(blocks: list[Block]) -> list[Block]:
    """Replace each port that a block names with ``--port`` by a free one, in all blocks: pages run beside others."""
    ports = {port for block in blocks if block.verb in {"run", "starts"} for port in _PORT.findall(block.text)}
    free: dict[str, str] = {}
    while len(free) < len(ports):
        # Below what systems give to whoever asks for any port, so that nobody is given it meanwhile.
        found = random.randrange(20_000, 30_000)
        if str(found) not in free.values() and _is_free(found):
            free[sorted(ports)[len(free)]] = str(found)
    return [replace(block, text=_NUMBER.sub(lambda one: free.get(one[0], one[0]), block.text)) for block in blocks]


def _is_free(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows under it ("" for none)."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise BadPage(f"{block.where}: a console block starts with a command: $ ...")
        elif line.startswith("> "):
            command, shown = found[-1]
            found[-1] = (f"{command}\n{line[2:]}", shown)
        else:
            found[-1][1].append(line)
    return [(command, "\n".join(shown).strip()) for command, shown in found]


def ready_text(block: Block) -> str:
    """What a started command prints once it is ready."""
    return " ".join(shlex.split(block.argument))
