"""OnCue's migrations as complete files for the tool that migrates the rest of a database: Alembic or Django."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from oncue.errors import ConfigError
from oncue.store.postgres import schema

_COMMENT = re.compile(r"\s*--.*$", re.M)
_DEPENDENCY = re.compile(r"(\w+)\.(\w+)")


def script(since: int, name: str) -> str:
    """Return the steps after version ``since`` as a script for psql, each in a transaction of its own."""
    return "\n".join(schema.script(number, name) for number in _steps(since))


def alembic(since: int, name: str, after: str | None) -> str:
    """Return an Alembic revision with the steps after version ``since`` for the tables in schema ``name``.

    ``after`` is the revision before it. Raises ConfigError where there is no such step.
    """
    steps = _steps(since)
    before, last = (f'"{after}"', "") if after else (None, "  # put your last revision here")
    return f'''"""OnCue's tables, {_versions(steps)}. Made by: {_command("alembic", since, after)}

Where they are there already, made by `oncue migrate` or a worker, mark this as done: alembic stamp {_name(steps)}
"""

from alembic import op

revision = "{_name(steps)}"
down_revision = {before}{last}
branch_labels = None
depends_on = None

{_forward(steps, name)}

{_backward(steps, name)}


def upgrade() -> None:
    for statement in FORWARD:
        op.execute(statement)


def downgrade() -> None:
    """Drop them, with every job and all history."""
    for statement in BACKWARD:
        op.execute(statement)
'''


def django(since: int, name: str, after: str | None) -> str:
    """Return a Django migration with the steps after version ``since`` for the tables in schema ``name``.

    ``after`` is the migration before it, as ``app.0007_name``. Raises ConfigError where there is no such step, and for
    another form of ``after``.
    """
    steps = _steps(since)
    before, last = "", "  # put your app's last migration here"
    if after is not None:
        found = _DEPENDENCY.fullmatch(after)
        if found is None:
            raise ConfigError(f"{after!r} names no Django migration: write it as app.0007_name.")
        before, last = f'("{found[1]}", "{found[2]}")', ""
    return f'''"""OnCue's tables, {_versions(steps)}. Made by: {_command("django", since, after)}

Where they are there already, made by `oncue migrate` or a worker, mark this as done: manage.py migrate --fake.
Backwards drops them, with every job and all history.
"""

from django.db import migrations

{_forward(steps, name)}

{_backward(steps, name)}


class Migration(migrations.Migration):
    dependencies = [{before}]{last}
    operations = [migrations.RunSQL(FORWARD, reverse_sql=BACKWARD)]
'''


def _steps(since: int) -> Sequence[int]:
    if not 0 <= since < schema.VERSION:
        raise ConfigError(
            f"There is no step after version {since}: this OnCue's tables have version {schema.VERSION}, and the "
            "first step makes version 1 from 0."
        )
    return range(since + 1, schema.VERSION + 1)


def _versions(steps: Sequence[int]) -> str:
    return f"version {steps[-1]}" if steps[-1] == 1 else f"from version {steps[0] - 1} to {steps[-1]}"


def _name(steps: Sequence[int]) -> str:
    return f"oncue_{steps[-1]:04}"


def _command(target: str, since: int, after: str | None) -> str:
    return f"oncue migrate --{target}" + (f" --since {since}" if since else "") + (f" --after {after}" if after else "")


def _forward(steps: Sequence[int], name: str) -> str:
    return _listed("FORWARD", [*schema.locks(), *_each(schema.forward, steps, name)])


def _backward(steps: Sequence[int], name: str) -> str:
    return _listed("BACKWARD", [*schema.locks(), *_each(schema.backward, steps[::-1], name)])


def _each(sql: Callable[[int, str], str], steps: Sequence[int], name: str) -> list[str]:
    """Split into statements: some drivers take one at a time. Ours end with a line, and none holds a -- in a text."""
    bare = "\n".join(_COMMENT.sub("", sql(number, name)) for number in steps)
    return [part.strip().removesuffix(";") for part in bare.split(";\n") if part.strip()]


def _listed(name: str, statements: Sequence[str]) -> str:
    lines = "".join(f'    """{one}""",\n' if "\n" in one or '"' in one else f'    "{one}",\n' for one in statements)
    return f"{name} = [\n{lines}]"
