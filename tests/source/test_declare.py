"""What can't work is refused when it is declared, or when a worker starts, with what there is instead."""

from __future__ import annotations

from typing import Any

import pytest

from oncue.errors import ConfigError
from oncue.service import Service
from oncue.task import Call
from tests.databases import Backend
from tests.source.stage import Stage


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"key": "question"}, "same for every row"),
        ({"key": "question-{id"}, "no template"),
        ({"key": "question-{id.real}"}, "only names of columns"),
        ({"key": "question-{id!r}"}, "only names of columns"),
        ({"key": "question-{}"}, "only names of columns"),
        ({"due_format": "unix"}, "due_format"),
        ({"where": "  "}, "where"),
        ({"args": {"nope": "{id}"}}, "unknown"),
        ({"args": {}}, "missing"),
        ({"task": print}, "needs a task"),
        ({"id": ""}, "id=''"),
        ({"name": "two\nlines"}, "name="),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(sqlite: Backend, options: dict[str, Any], told: str) -> None:
    stage = Stage(sqlite)
    with pytest.raises(ConfigError, match=told):
        stage.declare(**options)
    stage.db.close()


def test_two_sources_of_one_name_and_oncues_own_tables_are_refused(sqlite: Backend) -> None:
    stage = Stage(sqlite)
    stage.declare()
    with pytest.raises(ConfigError, match="Two sources are named 'free_trials'"):
        stage.declare()
    stage.declare(name="other")
    with pytest.raises(ConfigError, match="no table of yours"):
        stage.app.source("oncue_job", key="{id}", due="scheduled_at", task=stage.task)
    stage.db.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"due": "due_at"}, "no such column: due_at"),
        ({"id": "uuid"}, "no such column: uuid"),
        ({"key": "question-{number}"}, "no such column: number"),
        ({"where": "state = 'x'"}, 'no such column: state|column "state" does not exist'),
        ({"where": "status = "}, "syntax error|incomplete"),
        ({"where": "status = :mine"}, "binding|syntax error"),
        ({"id": "name"}, "neither the primary key"),
        ({"due": 'x" FROM sqlite_master; DROP TABLE free_trials; --'}, "no such column"),
    ],
)
async def test_a_column_that_does_not_exist_is_refused_when_a_worker_starts(
    stage: Stage, options: dict[str, Any], told: str
) -> None:
    stage.declare(**options)
    with pytest.raises(ConfigError, match=told) as refused:
        await stage.app.sources.install()
    if "no such column" in str(refused.value):
        assert "The columns of 'free_trials' are: id, name, status, next_question_scheduled_for." in str(refused.value)


async def test_names_are_names_whatever_is_in_them(backend: Backend) -> None:
    stage = Stage(backend, schema='CREATE TABLE "a ""b"" --" ("my id" TEXT UNIQUE, "due;" TEXT, x TEXT)')
    stage.app.source('a "b" --', id="my id", due="due;", key="k-{x}", task=stage.task, args="{x}", trigger=True)
    async with stage.app:
        await stage.app.sources.install()
        stage.db.execute('INSERT INTO "a ""b"" --" VALUES (?, ?, ?)', ("o'ne", stage.at(0), "7"))
        await stage.work()
    assert stage.ran == [7]
    stage.db.close()


async def test_a_comment_in_the_condition_swallows_nothing(stage: Stage) -> None:
    stage.declare(where="status = 'active' OR status = 'trial' -- those who pay not")
    stage.put(1, stage.at(0), "paid")
    stage.put(2, stage.at(0), "trial")
    await stage.app.sources.install()
    await stage.sweep()
    await stage.work()
    assert stage.ran == [2]


async def test_arguments_come_from_columns_templates_values_and_functions(stage: Stage) -> None:
    ran: list[Any] = []

    @stage.app.task()
    async def greet(id: str, name: str, *, loud: bool = False, times: int = 1) -> None:
        ran.append((id, name, loud, times))

    def call(row: Any) -> Call[None]:
        return greet.call(str(row["id"]), row["name"], times=row["id"])

    stage.declare(task=greet, args={"id": "{id}", "name": "{name} {id}", "loud": True}, name="a", key="a-{id}")
    stage.declare(task=greet, args=call, name="b", key="b-{id}")
    stage.put(3, stage.at(0))
    stage.db.execute("UPDATE free_trials SET name = 'Ann'")
    await stage.sweep()
    await stage.work()
    assert sorted(ran) == [("3", "Ann", False, 3), ("3", "Ann 3", True, 1)]


async def test_a_table_that_is_not_there_yet_is_looked_for_again(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(backend, schema="")
    stage.declare(trigger=True)
    async with stage.app:
        await stage.app.sources.install()
        assert "no table 'free_trials'" in caplog.text
        await stage.sweep()
        assert "source free_trials: source" not in caplog.text
        stage.db.execute(
            "CREATE TABLE free_trials (id INTEGER PRIMARY KEY, status TEXT, next_question_scheduled_for TEXT)"
        )
        await stage.sweep()
        stage.put(1, stage.at(0))
        await stage.work()
        assert stage.ran == [1]
    stage.db.close()


async def test_a_service_starts_with_its_sources(stage: Stage) -> None:
    stage.declare(due="nope")
    service = Service(stage.app)
    import asyncio

    with pytest.raises(ConfigError, match="no such column: nope"):
        await service.run(asyncio.Event())
