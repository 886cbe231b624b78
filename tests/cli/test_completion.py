"""Shell completion, and that every command says in the same way how it is used."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from oncue.cli import main
from tests.cli.stage import Stage

NO_JSON = {
    # They run until they are stopped.
    ("worker",), ("serve",), ("demo",), ("whatsapp", "simulate"),
    # They print what a shell or a host reads.
    ("completion",), ("cron", "export"),
    # It answers in JSON always.
    ("conversations", "export"),
}  # fmt: skip


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_command(stage: Stage, shell: str) -> None:
    done = stage.here("completion", shell)
    assert done.exit_code == 0
    assert "_ONCUE_COMPLETE=" + shell in done.stdout
    assert stage.here("completion", "csh").exit_code == 2


def shell(name: str) -> str:
    """Where a shell is; where it isn't, the test is skipped and says so."""
    if (found := shutil.which(name)) is None:
        pytest.skip(f"no {name} here: Debian's package {name}")
    return found


@pytest.fixture
def scripted(stage: Stage) -> Stage:
    """A folder with ``oncue`` as a command, which is on the path, and a script for each shell."""
    command = stage.folder / "oncue"
    command.write_text(f"#!{sys.executable}\nfrom oncue.cli import main\nmain(prog_name='oncue')\n")
    command.chmod(0o755)
    for name in ("bash", "zsh", "fish"):
        (stage.folder / f"script.{name}").write_text(stage.here("completion", name).stdout)
    stage.environment["PATH"] = f"{stage.folder}{os.pathsep}{stage.environment['PATH']}"
    return stage


LINES = pytest.mark.parametrize(
    ("line", "word"), [("oncue jobs list --state dis", "discarded"), ("oncue sched", "schedules")]
)


@LINES
def test_bash_completes_values_and_commands(scripted: Stage, line: str, word: str) -> None:
    words = line.split()
    program = f"""
    source ./script.bash
    COMP_WORDS=({line}) COMP_CWORD={len(words) - 1}
    _oncue_completion oncue {words[-1]} {words[-2]}
    echo "${{COMPREPLY[@]}}"
    """
    assert said(scripted, [shell("bash"), "-c", program]) == [word]


@LINES
def test_fish_completes_values_and_commands(scripted: Stage, line: str, word: str) -> None:
    program = f"source ./script.fish; complete --do-complete '{line}'"
    (answer,) = said(scripted, [shell("fish"), "--no-config", "-c", program])
    # A description may follow.
    assert answer.split("\t")[0] == word


def said(stage: Stage, command: list[str]) -> list[str]:
    done = subprocess.run(command, cwd=stage.folder, env=stage.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@LINES
def test_zsh_completes_values_and_commands(scripted: Stage, line: str, word: str) -> None:
    """It completes for a person at a terminal only."""
    zsh = shell("zsh")
    ours, theirs = pty.openpty()
    environment = scripted.environment | {"TERM": "dumb", "PS1": "", "COLUMNS": "200"}
    with subprocess.Popen(
        [zsh, "-f", "-i"], cwd=scripted.folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            # The marks are put together by the shell, so that the echo of what is typed is none.
            os.write(ours, b"autoload -Uz compinit; compinit -u -D; source ./script.zsh; print 'rea''dy'\n")
            until(ours, "ready")
            # Ctrl-A: what was completed is printed rather than run.
            os.write(ours, f"{line}\t\x01print -r -- 'com''pleted' \n".encode())
            completed = until(ours, "completed (oncue [^\r\n]*)\r?\n")[1]
        finally:
            process.kill()
            os.close(ours)
    assert completed.split() == [*line.split()[:-1], word]


def until(terminal: int, pattern: str) -> re.Match[str]:
    """Read a terminal until it has shown what is looked for."""
    shown = ""
    while (found := re.search(pattern, shown)) is None:
        shown += os.read(terminal, 4096).decode(errors="replace")
    return found


def test_each_command_says_what_it_does_and_refuses_what_is_written_wrongly() -> None:
    for path, command in commands(main):
        if path == ("demo",):  # hands all options on
            continue
        assert CliRunner().invoke(main, [*path, "--help"]).exit_code == 0
        assert command.get_short_help_str(limit=200), path
        assert CliRunner().invoke(main, [*path, "--no-such-option"]).exit_code == 2, path


def test_each_command_answers_in_json_but_for_those_that_can_not() -> None:
    without = {
        path
        for path, command in commands(main)
        if not isinstance(command, click.Group) and not any("--json" in option.opts for option in command.params)
    }
    assert without == NO_JSON


def test_a_worker_loads_no_more_than_it_needs() -> None:
    """Each start of a worker would wait for it."""
    program = "import sys; from oncue.cli import run; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split()
    assert "oncue.worker" in loaded
    assert not {"oncue.operate", "oncue.cli.jobs", "urllib.request", "rich"} & set(loaded)
