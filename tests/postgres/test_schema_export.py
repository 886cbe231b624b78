"""The migration files that OnCue prints for Alembic and Django, run by these, forward and back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from oncue.cli import main
from tests.postgres.conftest import Base

ENV = """
from alembic import context
from sqlalchemy import create_engine

url = context.config.get_main_option("sqlalchemy.url")
if context.is_offline_mode():
    context.configure(url=url, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""
ASYNC_ENV = """
import asyncio
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

def work(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(context.config.get_main_option("sqlalchemy.url"))
    async with engine.connect() as connection:
        await connection.run_sync(work)
        await connection.commit()
    await engine.dispose()

asyncio.run(main())
"""
FIRST = """
from alembic import op

revision, down_revision, branch_labels, depends_on = "first", None, None, None

def upgrade():
    op.execute("CREATE TABLE trials (id int)")

def downgrade():
    op.execute("DROP TABLE trials")
"""
TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'cue' AND tablename LIKE 'oncue_%'"


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["migrate", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def checked(base: Base) -> int:
    return CliRunner().invoke(main, ["migrate", "--check", "--database", f"{base.url}?schema=cue"]).exit_code


def python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": "."}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def project(folder: Path, url: str, env: str) -> None:
    """An Alembic project with one revision of the user's own and the one that OnCue prints."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(env)
    (folder / "alembic.ini").write_text(
        f"[alembic]\nscript_location = .\npath_separator = os\nsqlalchemy.url = {url}\n"
    )
    (folder / "versions" / "first.py").write_text(FIRST)
    text = printed("--alembic", "--after", "first", "--database", "postgresql://nowhere/db?schema=cue")
    (folder / "versions" / "oncue_0001.py").write_text(text)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_alembic_runs_it_and_takes_it_back(base: Base, tmp_path: Path, driver: str) -> None:
    env = ASYNC_ENV if driver == "asyncpg" else ENV
    project(tmp_path, base.url.replace("postgresql:", f"postgresql+{driver}:"), env)
    python(tmp_path, "-m", "alembic", "upgrade", "head")
    assert checked(base) == 0
    python(tmp_path, "-m", "alembic", "downgrade", "first")
    assert (checked(base), base.value(TABLES)) == (1, 0)
    python(tmp_path, "-m", "alembic", "upgrade", "head")
    assert checked(base) == 0


def test_alembic_prints_it_as_sql(base: Base, tmp_path: Path) -> None:
    project(tmp_path, base.url.replace("postgresql:", "postgresql+psycopg:"), ENV)
    base.run(python(tmp_path, "-m", "alembic", "upgrade", "head", "--sql"))
    assert checked(base) == 0


def test_django_runs_it_and_takes_it_back(base: Base, tmp_path: Path) -> None:
    app = tmp_path / "shop" / "migrations"
    app.mkdir(parents=True)
    (app / "__init__.py").touch()
    (app.parent / "__init__.py").touch()
    (app / "0001_trials.py").write_text(
        "from django.db import migrations\nclass Migration(migrations.Migration):\n    operations = []\n"
    )
    text = printed("--django", "--after", "shop.0001_trials", "--database", "postgresql://nowhere/db?schema=cue")
    (app / "0002_oncue.py").write_text(text)
    where, _, name = base.url.partition("@")[2].partition("/")
    host, port = where.split(":")
    database = {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "postgres", "HOST": host, "PORT": port}
    (tmp_path / "settings.py").write_text(
        f"DATABASES = {{'default': {database!r}}}\nINSTALLED_APPS = ['shop']\nUSE_TZ = True\n"
    )

    def manage(*arguments: str) -> str:
        return python(tmp_path, "-m", "django", *arguments, "--settings=settings")

    manage("migrate", "-v0")
    assert checked(base) == 0
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")
    manage("migrate", "shop", "0001", "-v0")
    assert (checked(base), base.value(TABLES)) == (1, 0)
    manage("migrate", "-v0")
    assert checked(base) == 0


def test_it_says_what_it_can_not_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner, url = CliRunner(), "postgresql://nowhere/db"
    for options, code, told in (
        (["--django", "--after", "first", "--database", url], 1, "write it as app.0007_name"),
        (["--alembic", "--since", "9", "--database", url], 1, "no step after version 9"),
        (["--alembic", "--database", "sqlite:///a.db"], 2, "for PostgreSQL"),
        (["--since", "0", "--sql", "--database", "sqlite:///a.db"], 2, "for PostgreSQL"),
        (["--alembic", "--django", "--database", url], 2, "exclude each other"),
        (["--after", "x", "--database", url], 2, "--after belongs to"),
        (["--since", "0", "--check", "--database", url], 2, "--since belongs to"),
    ):
        done = runner.invoke(main, ["migrate", *options])
        assert (done.exit_code, told in done.output) == (code, True), done.output
    assert not list(tmp_path.iterdir())


def test_what_it_prints_holds_no_password_and_needs_no_server() -> None:
    url = "postgresql://me:secret-word@nowhere/db?schema=cue"
    assert "secret-word" not in printed("--alembic", "--database", url) + printed("--django", "--database", url)
    assert 'CREATE TABLE "cue".oncue_job' in printed("--sql", "--since", "0", "--database", url)
