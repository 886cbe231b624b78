"""What tables in PostgreSQL have that SQLite's don't: types, schemas, rights; what is wrong there is told as that."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from oncue.clock import SECOND, to_us
from oncue.errors import ConfigError
from oncue.store.postgres import PostgresStore
from oncue.store.postgres.source import PostgresSources
from oncue.store.sources import SourceBroken
from tests.databases import Backend
from tests.source.stage import START, Stage

KEYS = ["plain", 'it\'s "quoted" \\ back', "tab\tand\nline\x01\x1f\x7f", "Ünïcode \u2028 😀", "", "5", "{a}$1%s"]


@pytest_asyncio.fixture
async def bare(postgres: Backend) -> AsyncIterator[Stage]:
    """A stage without a table, its application open."""
    made = Stage(postgres, schema="")
    async with made.app:
        yield made
    made.db.close()


def keeper(stage: Stage) -> PostgresSources:
    store = stage.app.store
    assert isinstance(store, PostgresStore)
    return store.source_keeper()


async def looked_at(stage: Stage) -> list[Any]:
    """The keys of the rows that a look finds, which is none where all is handled."""
    [source] = stage.app.declared_sources.values()
    found = await keeper(stage).find(source.table, stage.clock.now() + 120 * SECOND)  # type: ignore[union-attr]
    return [row.key for row in found.rows]


@pytest.mark.parametrize(
    ("type", "keys"),
    [
        ("bigint", [1, -7, 2**62]),
        ("smallint", [1, 2]),
        ("text", KEYS),
        ('varchar(40) COLLATE "C"', KEYS),
        ("uuid", [str(uuid.UUID(int=n)) for n in (1, 2**127)]),
    ],
)
async def test_rows_are_told_apart_by_numbers_texts_and_uuids(bare: Stage, type: str, keys: list[Any]) -> None:
    ran: list[Any] = []

    @bare.app.task()
    async def note(id: str) -> None:
        ran.append(id)

    bare.db.execute(f"CREATE TABLE t (id {type} PRIMARY KEY, due timestamptz, n integer GENERATED ALWAYS AS IDENTITY)")
    bare.app.source("t", key="k-{n}", due="due", task=note, trigger=True)
    await bare.app.sources.install()
    for key in keys:
        bare.db.execute("INSERT INTO t VALUES (?, ?)", (key, f"{bare.at(10)}Z"))
    assert await bare.app.sources.reconcile_changed() == len(keys)
    assert bare.db.notes() == []
    assert [key for _, key in bare.db.keys("oncue_source_row")] == sorted(keys)
    assert await looked_at(bare) == []
    bare.db.execute("UPDATE t SET due = due + interval '10 s'")
    assert await bare.sweep() == len(keys)
    bare.clock.move(30)
    await bare.work()
    assert sorted(ran) == sorted(map(str, keys))
    assert await bare.sweep() == 0
    bare.db.execute("DELETE FROM t")
    bare.clock.move(8 * 86_400)
    await bare.sweep()
    await bare.sweep()
    assert bare.db.keys("oncue_source_row") == []


@pytest.mark.parametrize(
    ("type", "value", "due"),
    [
        ("timestamptz", "2026-09-21 16:13:20.123456+02", "2026-09-21T14:13:20.123456Z"),
        ("timestamp", "2026-09-21 14:13:20.5", "2026-09-21T14:13:20.5Z"),
        ("timestamp(0)", "2026-09-21 14:13:20", "2026-09-21T14:13:20Z"),
        ("date", "2026-09-21", "2026-09-21T00:00:00Z"),
        ("text", "2026-09-21T16:13:20+02:00", "2026-09-21T14:13:20Z"),
        ("char(25)", "2026-09-21T14:13:20Z", "2026-09-21T14:13:20Z"),
        ("bigint", "1790000000123", "2026-09-21T14:13:20.123Z"),
        ("integer", "1790000000", "2026-09-21T14:13:20Z"),
        ("numeric(30,10)", "1790000000.1234560000", "2026-09-21T14:13:20.123456Z"),
        ("double precision", "1790000000.5", "2026-09-21T14:13:20.5Z"),
    ],
)
async def test_due_columns_of_every_type_are_read_exactly(bare: Stage, type: str, value: str, due: str) -> None:
    from datetime import datetime

    bare.db.execute(f"CREATE TABLE t (id integer PRIMARY KEY, due {type})")
    bare.db.execute(f"INSERT INTO t VALUES (1, '{value}')")
    bare.app.source("t", key="k-{id}", due="due", task=bare.task)
    assert await bare.sweep() == 1
    [job] = await bare.jobs()
    assert job.scheduled_at == to_us(datetime.fromisoformat(due))
    assert await looked_at(bare) == [], "its memory stands for the very value that is in the row"
    bare.clock.move(60)
    await bare.work()
    assert bare.ran == [1]


async def test_times_that_are_none_disturb_no_other_row(bare: Stage) -> None:
    bare.db.execute("CREATE TABLE t (id integer PRIMARY KEY, due timestamptz, seen timestamptz, f double precision)")
    for id, due in enumerate(["infinity", "-infinity", "0044-03-15 BC", "20000-01-01", f"{bare.at(0)}Z"], 1):
        bare.db.execute("INSERT INTO t VALUES (?, ?, 'infinity', 'NaN')", (id, due))
    bare.app.source("t", key="k-{id}-{seen}", due="due", task=bare.task, args=lambda row: bare.task.call(row["id"]))
    assert await bare.sweep() == 1
    await bare.work()
    assert bare.ran == [5]
    [status] = await bare.app.sources.status()
    assert status.unreadable == 2, "-infinity and a year before the first"
    bare.db.execute("UPDATE t SET due = ? WHERE id = 1", (f"{bare.at(10)}Z",))
    assert await bare.sweep() == 1
    bare.db.execute("UPDATE t SET due = 'infinity' WHERE id = 1")
    await bare.sweep()
    [job] = await bare.jobs("cancelled")
    assert "its due is infinity" in (job.reason or "")


async def test_what_a_function_of_the_row_gets_is_json(bare: Stage) -> None:
    got: list[Any] = []

    def call(row: Any) -> Any:
        got.append(dict(row))
        return bare.task.call(row["id"])

    bare.db.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, due timestamp, at timestamptz, n numeric, ref uuid, tags text[], "
        "extra jsonb, raw bytea)"
    )
    bare.db.execute(
        "INSERT INTO t VALUES (1, ?, '2026-01-02 03:04:05Z', 1.50, '00000000-0000-0000-0000-000000000001', "
        """'{a,b}', '{"b": [1, null]}', '\\x0102')""",
        (bare.at(0),),
    )
    bare.app.source("t", key="k-{id}", due="due", task=bare.task, args=call)
    assert await bare.sweep() == 1
    row = got[0]
    assert row.pop("at") == "2026-01-02T03:04:05+00:00", "not in the server's own zone"
    assert row == {
        "id": 1, "due": bare.at(0, "T"), "n": 1.5, "ref": "00000000-0000-0000-0000-000000000001", "tags": ["a", "b"],
        "extra": {"b": [1, None]}, "raw": "\\x0102",
    }  # fmt: skip


@pytest.mark.parametrize("table", ["shop.orders", "line", 'a "b" c', "MiXed.Case"])
async def test_a_table_is_found_by_schema_and_by_any_name(bare: Stage, table: str) -> None:
    schema, dot, name = table.partition(".")
    quoted = ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))
    if dot:
        bare.db.execute(f'CREATE SCHEMA "{schema}"')
    bare.db.execute(f"CREATE TABLE {quoted} (id integer PRIMARY KEY, due timestamptz, status text)")
    bare.app.source(
        table, key="k-{id}", due="due", task=bare.task, where="status = 'on'", trigger=True, name=name or "one"
    )
    await bare.app.sources.install()
    bare.db.execute(f"INSERT INTO {quoted} VALUES (1, ?, 'on')", (f"{bare.at(0)}Z",))
    assert await bare.app.sources.reconcile_changed() == 1
    assert await looked_at(bare) == []
    await bare.work()
    assert bare.ran == [1]
    bare.db.execute(f"DELETE FROM {quoted}")
    bare.clock.move(8 * 86_400)
    await bare.sweep()
    assert bare.db.keys("oncue_source_row") == []


async def test_a_partitioned_table_and_a_materialized_view_can_be_sources(bare: Stage) -> None:
    bare.db.execute("CREATE TABLE parts (id integer PRIMARY KEY, due timestamptz) PARTITION BY RANGE (id)")
    bare.db.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)")
    bare.db.execute("CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (100) TO (200)")
    bare.app.source("parts", key="k-{id}", due="due", task=bare.task, trigger=True)
    await bare.app.sources.install()
    bare.db.execute("INSERT INTO parts_1 VALUES (1, ?)", (f"{bare.at(0)}Z",))
    bare.db.execute("UPDATE parts SET id = 101")
    assert bare.db.notes() == [("parts", 1), ("parts", 101)]
    await bare.work()
    assert bare.ran == [101]
    bare.db.execute("CREATE MATERIALIZED VIEW seen AS SELECT * FROM parts")
    bare.app.source("seen", key="seen-{id}", due="due", task=bare.task)
    assert await bare.sweep() == 1
    bare.app.source("seen", key="s-{id}", due="due", task=bare.task, trigger=True, name="other")
    with pytest.raises(ConfigError, match="Views take none"):
        await bare.app.sources.install()


async def test_rows_of_a_table_whose_ids_became_another_type_are_new_ones(bare: Stage) -> None:
    bare.db.execute("CREATE TABLE t (id integer PRIMARY KEY, due timestamptz)")
    bare.db.execute("INSERT INTO t VALUES (1, ?)", (f"{bare.at(10)}Z",))
    bare.app.source("t", key="k-{id}", due="due", task=bare.task, args={"trial_id": 9})
    assert await bare.sweep() == 1
    for type, value in (("text", "'one'"), ("uuid", "gen_random_uuid()"), ("integer", "3")):
        bare.db.execute("DROP TABLE t")
        bare.db.execute(f"CREATE TABLE t (id {type} PRIMARY KEY, due timestamptz)")
        bare.db.execute(f"INSERT INTO t VALUES ({value}, ?)", (f"{bare.at(10)}Z",))
        assert await bare.sweep() == 1
        assert len(await bare.jobs("scheduled")) == 1
        [status] = await bare.app.sources.status()
        assert status.drift is None
    bare.clock.move(20)
    await bare.work()
    assert bare.ran == [9]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"id": "n"}, "'n' is of type numeric, which can't tell rows apart"),
        ({"due": "name"}, "'name' is of type interval, which names no instant"),
        ({"due_format": "seconds"}, "leave due_format out"),
        ({"table": "no.such"}, "no table 'no.such' in this database. There are: t"),
        ({"table": "T"}, r"no table 'T' in this database on the search path \(.*\). There are: t"),
        ({"where": "id / 0 = 1; DROP TABLE t"}, "syntax error"),
        ({"where": "id = $9"}, "parameter"),
    ],
)
async def test_what_cannot_work_is_refused_with_what_there_is(bare: Stage, options: dict[str, Any], told: str) -> None:
    bare.db.execute("CREATE TABLE t (id integer PRIMARY KEY, due timestamptz, n numeric UNIQUE, name interval)")
    declared: dict[str, Any] = {"table": "t", "key": "k-{id}", "due": "due", "task": bare.task, **options}
    bare.app.source(**declared)
    [source] = bare.app.declared_sources.values()
    with pytest.raises(SourceBroken, match=told):
        await keeper(bare).check(source.table)  # type: ignore[union-attr]


FAILING = """CREATE FUNCTION picky(t) RETURNS boolean LANGUAGE plpgsql AS $$
  BEGIN IF $1.id = 1 THEN RAISE EXCEPTION 'row 1 will not do'; END IF; RETURN true; END $$"""


@pytest.mark.parametrize(
    ("where", "told"), [("10 / (id - 1) > 0", "division by zero"), ("picky(t)", "row 1 will not do")]
)
async def test_a_condition_that_fails_on_a_row_is_the_sources_trouble_alone(
    bare: Stage, where: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    for table in ("t", "fine"):
        bare.db.execute(f"CREATE TABLE {table} (id integer PRIMARY KEY, due timestamptz)")
        bare.db.execute(f"INSERT INTO {table} VALUES (2, ?)", (f"{bare.at(10)}Z",))
    bare.db.execute(FAILING)
    bare.app.source("t", key="k-{id}", due="due", where=where, task=bare.task)
    bare.app.source("fine", key="f-{id}", due="due", task=bare.task)
    await bare.app.sources.install()
    assert await bare.sweep() == 2
    bare.db.execute("INSERT INTO t VALUES (1, ?)", (f"{bare.at(10)}Z",))
    bare.db.execute("INSERT INTO fine VALUES (1, ?)", (f"{bare.at(10)}Z",))
    sweeps = [bare.sweep(), *(bare.app.schedule(bare.task.call(9), delay=90) for _ in range(20))]
    done = await asyncio.gather(*sweeps)
    assert done[0] == 1, "the other source is swept"
    assert told in caplog.text
    fine, broken = sorted(await bare.app.sources.status(), key=lambda one: one.name)
    assert fine.drift is None
    assert told in str(broken.drift)
    bare.db.execute("DELETE FROM t WHERE id = 1")
    await bare.sweep()
    assert [one.drift for one in await bare.app.sources.status()] == [None, None]


async def test_a_condition_that_fails_at_the_claim_or_the_apply_is_told_and_nothing_is_lost(bare: Stage) -> None:
    bare.db.execute("CREATE TABLE t (id integer PRIMARY KEY, due timestamptz)")
    bare.db.execute(FAILING)
    bare.db.execute("INSERT INTO t VALUES (1, ?)", (f"{bare.at(0)}Z",))
    broken = [False]

    def call(row: Any) -> Any:
        if broken[0]:
            bare.db.execute("UPDATE switched SET bad = true")
        return bare.task.call(row["id"])

    bare.db.execute("CREATE TABLE switched (bad boolean)")
    bare.db.execute("INSERT INTO switched VALUES (false)")
    where = "CASE WHEN (SELECT bad FROM switched) THEN picky(t) ELSE true END"
    bare.app.source("t", key="k-{id}", due="due", where=where, task=bare.task, args=call)
    broken[0] = True
    await bare.sweep()
    [status] = await bare.app.sources.status()
    assert "row 1 will not do" in str(status.drift), "between the reading of the row and the making of its job"
    assert await bare.jobs() == []
    broken[0] = False
    bare.db.execute("UPDATE switched SET bad = false")
    await bare.sweep()
    assert len(await bare.jobs("scheduled")) == 1
    bare.db.execute("DROP TABLE switched")
    await bare.work()
    bare.db.execute("CREATE TABLE switched AS SELECT false AS bad")
    for _ in range(3):
        bare.clock.move(60)
        await bare.sweep()
        await bare.work()
    assert bare.ran == [1]


async def test_a_row_whose_job_is_being_moved_is_not_claimed_for_its_old_time(bare: Stage) -> None:
    """Else its new due value would be remembered as that of a job which is skipped."""
    from oncue.store.postgres.run import answer_of, execute, statements
    from oncue.store.sources import Offer
    from oncue.store.steps import Query, source

    bare.db.execute("CREATE TABLE t (id integer PRIMARY KEY, due timestamptz)")
    bare.db.execute("INSERT INTO t VALUES (1, ?)", (f"{bare.at(0)}Z",))
    bare.app.source("t", key="k-{id}", due="due", task=bare.task)
    await bare.sweep()
    bare.db.execute("UPDATE t SET due = ?", (f"{bare.at(30)}Z",))
    [declared] = bare.app.declared_sources.values()
    table = declared.table  # type: ignore[union-attr]
    [row] = await keeper(bare).rows(table, [1])
    wanted = bare.app.sources._job(declared, declared.scheduled(row), 1)
    store = bare.app.store
    assert isinstance(store, PostgresStore)

    async def slow(conn: Any) -> None:
        steps = source.apply("t", table, [Offer(1, wanted, None, row.raw, seen=row.seen)], START, None, 0)
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Query) and step.name == "source_move":
                    await bare.work()
                    assert bare.ran == []
                parts = statements(step, store.schema_name, locked=False)
                answer = answer_of(step, [await execute(conn, part) for part in parts])
        except StopIteration:
            return

    await store.transaction(slow)
    bare.clock.move(31)
    for _ in range(2):
        await bare.work()
        await bare.sweep()
    assert bare.ran == [1]
    [job] = await bare.jobs()
    assert (job.scheduled_at, job.outcome) == (START + 30 * SECOND, "completed")


@pytest.mark.parametrize("rights", ["", "GRANT SELECT ON secret.t TO {role}", "GRANT USAGE ON SCHEMA secret TO {role}"])
async def test_missing_rights_on_the_table_are_told_with_the_grant(
    postgres: Backend, rights: str, caplog: pytest.LogCaptureFixture
) -> None:
    owner = Stage(postgres, schema="")
    role = f"reader_{uuid.uuid4().hex[:8]}"
    owner.db.execute(f"CREATE ROLE {role} LOGIN")
    try:
        owner.db.execute("CREATE SCHEMA secret; CREATE TABLE secret.t (id integer PRIMARY KEY, due timestamptz)")
        owner.db.execute(f"GRANT USAGE ON SCHEMA oncue TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA oncue TO {role}")
        owner.db.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA oncue TO {role}")
        if rights:
            owner.db.execute(rights.format(role=role))
        url = postgres.url.replace("postgres@", f"{role}@")
        assert url != postgres.url
        stage = Stage(Backend(url, postgres.connect), schema="")
        stage.app.source("secret.t", key="k-{id}", due="due", task=stage.task)
        async with stage.app:
            await stage.sweep()
            assert "permission denied" in caplog.text
            assert ("GRANT SELECT" if "USAGE" in rights else "Grant USAGE") in caplog.text
        stage.db.close()
    finally:
        owner.db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        owner.db.close()
