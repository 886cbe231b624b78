"""Shell completion, and that every command says in the same way how it is used."""

from __future__ import annotations

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


def test_bash_completes_values(stage: Stage) -> None:
    bash = shutil.which("bash")
    assert bash is not None
    command = stage.folder / "oncue"
    command.write_text(f"#!{sys.executable}\nfrom oncue.cli import main\nmain(prog_name='oncue')\n")
    command.chmod(0o755)
    (stage.folder / "script").write_text(stage.here("completion", "bash").stdout)
    program = """
    source ./script
    COMP_WORDS=(oncue jobs list --state dis) COMP_CWORD=4
    _oncue_completion ./oncue dis --state
    echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [bash, "-c", program], cwd=stage.folder, env=stage.environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("discarded\n", "")


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
