"""An application that can't be loaded is told of clearly; so is a command that was written wrongly."""

from __future__ import annotations

import pytest

import oncue
from tests.cli.stage import Stage


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("nowhere:app", "There is no module 'nowhere'"),
        ("trial.nested:app", "There is no module 'trial.nested'"),
        ("trial.py:app", "Did you mean trial:app?"),
        ("trial:missing", "Module 'trial' has no attribute 'missing'. Did you mean trial:app?"),
        ("trial:greet", "trial:greet is a Task, no OnCue application. Did you mean trial:app?"),
        ("trial:app.name", "trial:app.name is a str, no OnCue application."),
        ("trial", "write module:attribute, such as trial:app. Did you mean trial:app?"),
        ("./trial.py", "Did you mean trial:app?"),
        ("trial:", "names no application"),
    ],
)
def test_a_wrong_name_is_a_usage_error_that_says_what_to_write(stage: Stage, target: str, told: str) -> None:
    done = stage.apart("drain", target)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not stage.database.exists()


def test_a_module_that_fails_is_shown_with_its_own_traceback(stage: Stage) -> None:
    (stage.folder / "broken.py").write_text("def load():\n    import not_installed_here\nload()\n")
    done = stage.apart("worker", "broken:app")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert 'broken.py", line 2, in load' in done.stderr
    assert "importlib" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last == "Error: Module 'broken' can't be imported: ModuleNotFoundError: No module named 'not_installed_here'"


def test_a_module_that_cannot_be_read_is_shown_too(stage: Stage) -> None:
    (stage.folder / "unreadable.py").write_text("app = (\n")
    done = stage.apart("worker", "unreadable:app")
    assert done.returncode == 1
    assert "unreadable.py" in done.stderr
    assert "SyntaxError" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("imported", "made", "told"),
    [
        ("from oncue import OnCue", "OnCue('mysql://host/db')", "No store for the URL"),
        ("from oncue.whatsapp import WhatsApp", "WhatsApp()", "WHATSAPP_TOKEN is not set"),
    ],
)
def test_an_error_that_oncue_raises_in_the_module_is_one_line_that_names_the_line(
    stage: Stage, imported: str, made: str, told: str
) -> None:
    (stage.folder / "wrong.py").write_text(f"{imported}\napp = {made}\n")
    done = stage.apart("worker", "wrong:app", WHATSAPP_TOKEN="")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: Module 'wrong' can't be imported: {told}")
    assert line.endswith("(wrong.py, line 2)")


def test_a_driver_that_is_not_installed_is_one_line(stage: Stage) -> None:
    (stage.folder / "asyncpg.py").write_text("raise ModuleNotFoundError('no asyncpg', name='asyncpg')\n")
    done = stage.apart("worker", "trial:app", DATABASE_URL="postgresql://h/db")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: PostgreSQL needs asyncpg: pip install 'oncue[postgres]'."]


def test_the_help_names_the_commands_and_the_exit_codes(stage: Stage) -> None:
    done = stage.apart("--help")
    assert done.returncode == 0
    for word in ("worker", "serve", "drain", "jobs", "schedules", "queues", "workers", "doctor", "demo", "Exit codes"):
        assert word in done.stdout
    assert oncue.__version__ in stage.apart("--version").stdout


def test_a_command_that_is_none_is_a_usage_error(stage: Stage) -> None:
    assert stage.here("nonsense").exit_code == 2
    assert stage.here("jobs", "list", "--state", "lost").exit_code == 2


def test_a_url_that_no_store_knows_keeps_its_password_to_itself(stage: Stage) -> None:
    done = stage.here("jobs", "list", "--database", "mysql://ann:hush@host/db")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: No store for the URL")
    assert "hush" not in done.output


@pytest.mark.parametrize(
    "command",
    [
        ["jobs", "list"],
        ["jobs", "show", "1"],
        ["jobs", "counts"],
        ["jobs", "cancel", "1"],
        ["jobs", "retry", "1"],
        ["jobs", "run-now", "1"],
        ["schedules", "list"],
        ["schedules", "preview", "nightly"],
        ["schedules", "pause", "nightly"],
        ["queues", "list"],
        ["queues", "pause", "default"],
        ["workers"],
        ["restored"],
        ["restored", "--list"],
        ["restored", "--release"],
    ],
    ids=" ".join,
)
def test_a_database_that_is_not_there_is_never_made(stage: Stage, command: list[str]) -> None:
    done = stage.here(*command)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: There is no database at {stage.database}. Is DATABASE_URL")
    assert list(stage.folder.iterdir()) == [stage.folder / "trial.py"]
