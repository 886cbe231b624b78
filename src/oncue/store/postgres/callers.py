"""Work in the caller's own transaction: all or nothing of a call, and nothing else of that transaction touched."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.json import decode

from oncue.errors import InvalidJob
from oncue.store.postgres import links
from oncue.store.postgres.connection import BEGIN
from oncue.store.postgres.links import Link, of_class, sqlstate
from oncue.store.postgres.portal import HOME, Home
from oncue.store.postgres.run import answer_of, named, qualified, statements
from oncue.store.postgres.schema import VERSION, too_new, too_old
from oncue.store.postgres.statement import Statement
from oncue.store.steps import Steps

if TYPE_CHECKING:
    from oncue.store.postgres import PostgresStore

T = TypeVar("T")
Talk = Generator[Statement, Any, T]
"""Asks for statements, and is sent their answers or thrown their errors."""

_SAVEPOINT = "SAVEPOINT oncue_call"
_RELEASE = "RELEASE SAVEPOINT oncue_call"
_UNDO = ("ROLLBACK TO SAVEPOINT oncue_call", _RELEASE)
_NO_TABLES = ("42P01", "3F000")
_FAILED = "25P02"
_MOST_CHECKED = 16


async def perform_in(connection: Any, steps: Callable[[], Steps[T]], store: PostgresStore, payload: str) -> T:
    """Run steps on the caller's connection inside the transaction that it is in, and notify with it.

    Where no transaction is open and each statement commits by itself, the steps are one transaction. Raises InvalidJob
    for a connection that can't take part, and otherwise what its driver raises; the transaction is then as before.
    """
    if _is_alchemy_async(connection):
        with _refusals():
            if not of_class(connection, "sqlalchemy.ext.asyncio", "AsyncConnection"):
                connection = await connection.connection()
            link = await connection.run_sync(links.AlchemyLink)
        await _learn_home(store)
        return await connection.run_sync(lambda _: _speak(link, _call(link, steps, store, payload)))  # type: ignore[no-any-return]
    if not _is_async(connection):
        return perform_in_sync(connection, steps, store, payload)
    _refuse_closed(connection)
    await _learn_home(store)
    if of_class(connection, "psycopg", "AsyncConnection"):
        psycopg = links.AsyncPsycopgLink(connection)
        await psycopg.settle()
        return await _speak_async(psycopg, _call(psycopg, steps, store, payload))
    asyncpg = links.AsyncpgLink(connection)
    return await _speak_async(asyncpg, _call(asyncpg, steps, store, payload))


def perform_in_sync(connection: Any, steps: Callable[[], Steps[T]], store: PostgresStore, payload: str) -> T:
    """``perform_in`` for a synchronous connection. Raises InvalidJob for an asynchronous one too."""
    if _is_async(connection) or _is_alchemy_async(connection):
        raise InvalidJob(
            f"This call takes a synchronous connection, not a {type(connection).__name__}: write "
            "`await app.schedule(..., connection=...)` in place of `app.sync.schedule(...)`, and so on; in a handler, "
            "`await ctx.complete(...)` in place of `ctx.complete_sync(...)`."
        )
    link = _link(connection, store)
    return _speak(link, _call(link, steps, store, payload))


def _is_async(connection: object) -> bool:
    return (
        of_class(connection, "asyncpg.connection", "Connection")
        or of_class(connection, "asyncpg.pool", "PoolConnectionProxy")
        or of_class(connection, "psycopg", "AsyncConnection")
    )


def _is_alchemy_async(connection: object) -> bool:
    return of_class(connection, "sqlalchemy.ext.asyncio", "AsyncConnection", "AsyncSession", "async_scoped_session")


def _link(connection: Any, store: PostgresStore) -> Link:
    if of_class(connection, "psycopg", "Connection"):
        _refuse_closed(connection)
        return links.PsycopgLink(connection, connection)
    if of_class(connection, "psycopg2.extensions", "connection"):
        _refuse_closed(connection)
        return links.Psycopg2Link(connection, connection)
    with _refusals():
        if of_class(connection, "sqlalchemy.orm", "Session", "scoped_session"):
            connection = connection.connection()
        if of_class(connection, "sqlalchemy.engine", "Connection"):
            return links.AlchemyLink(connection)
        if of_class(connection, "django.utils.connection", "ConnectionProxy") or of_class(
            connection, "django.db.backends.base.base", "BaseDatabaseWrapper"
        ):
            return _django(connection, store)
    gives = callable(connection) or any(hasattr(connection, name) for name in ("connect", "acquire", "getconn"))
    hint = " Take a connection from it first." if gives else ""
    raise InvalidJob(f"connection= takes {links.TAKEN}, to {store.url}; not a {type(connection).__name__}.{hint}")


def _django(connection: Any, store: PostgresStore) -> Link:
    if connection.vendor != "postgresql":
        raise InvalidJob(
            f"connection= is Django's to {connection.vendor} (alias {connection.alias!r}), but the jobs live in "
            f"{store.url}. Give django.db.connections[...] of that database, or leave connection= out."
        )
    connection.ensure_connection()
    return links.DbapiLink(connection, connection.connection)


def _refuse_closed(connection: Any) -> None:
    """Refuse a driver's connection that is closed, or was given back to its pool."""
    closed = getattr(connection, "_con", connection) is None
    if not closed:
        closed = connection.closed if hasattr(connection, "closed") else connection.is_closed()
    if closed:
        raise InvalidJob("connection= is closed, or was given back to its pool. Give an open one.")
    if getattr(connection, "async_", 0):
        raise InvalidJob("connection= is a psycopg2 connection with async=True, which takes no part. Use a plain one.")


@contextmanager
def _refusals() -> Iterator[None]:
    """Say in our words what SQLAlchemy and Django have against the use of a connection."""
    try:
        yield
    except Exception as error:
        names = {one.__name__ for one in type(error).__mro__}
        if sqlstate(error) == _FAILED or names & {"PendingRollbackError", "TransactionManagementError"}:
            raise InvalidJob(
                "The transaction of connection= has failed already, by an earlier error. Roll it back, then try again."
            ) from error
        if "SynchronousOnlyOperation" in names:
            raise InvalidJob(
                "Django's connection can't be used in a coroutine. Call app.sync.schedule(..., connection=...) in the "
                "function that holds the transaction, and that through asgiref's sync_to_async."
            ) from error
        if names & {"InvalidRequestError"}:
            raise InvalidJob(f"connection= can't be used here: {error}") from error
        raise


async def _learn_home(store: PostgresStore) -> None:
    """Learn by the open store where its tables are; where it is not open, the portal looks when it is asked."""
    if store.portal.home is None and store.is_open:
        store.portal.home = await store.pool.run(store.portal.look)


def _call(link: Link, steps: Callable[[], Steps[T]], store: PostgresStore, payload: str) -> Talk[T]:
    """Do all of a call or nothing of it, inside the transaction that is open."""
    alone = link.commits_alone()
    with _refusals():
        yield _command(BEGIN if alone else _SAVEPOINT)
    try:
        yield from _check(link, store)
        answer = yield from _run(steps(), store.schema_name)
        if payload:
            began = store.began()
            text, args = named("notify", store.schema_name, {"channel": store.channel, "hint": payload})
            store.learn(began, (yield Statement(text, tuple(args))))
    except BaseException:
        try:
            for command in ("ROLLBACK",) if alone else _UNDO:
                yield _command(command)
        except Exception:  # noqa: S110
            # The connection is gone and its transaction with it; what happened first is what the caller hears.
            pass
        raise
    yield _command("COMMIT" if alone else _RELEASE)
    return answer


def _command(sql: str) -> Statement:
    return Statement(sql, wanted="count")


def _run(steps: Steps[T], schema: str) -> Talk[T]:
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answers: list[Any] = []
            for statement in statements(step, schema, locked=False):
                answers += [(yield statement)]
            answer = answer_of(step, answers)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def _check(link: Link, store: PostgresStore) -> Talk[None]:
    """Refuse a connection to another database than the store's. Asked once a connection."""
    checked: dict[tuple[str, Home | None], None] = link.memory.setdefault("oncue_homes", {})
    if (store.schema_name, store.portal.home) in checked:
        return
    try:
        database, identity, version, oldest, _ = yield Statement(qualified(HOME, store.schema_name), read=decode)
    except Exception as error:
        if sqlstate(error) not in _NO_TABLES:
            raise
        raise InvalidJob(
            f"connection= is open on a database without OnCue's tables in schema {store.schema_name!r}. Run `oncue "
            f"migrate` on it, or, if it is not {store.url}, connect to that one or leave connection= out."
        ) from error
    if version < VERSION:
        raise InvalidJob(too_old(store.address, version))
    if oldest > VERSION:
        raise InvalidJob(too_new(version))
    home = store.portal.find_home()
    if home != Home(database, identity):
        raise InvalidJob(
            f"connection= is open on the database {database!r}"
            + (", of that name but another one" if home is not None and home.database == database else "")
            + f", but the jobs live in {store.url}: one transaction can't span both. Keep your tables in the same "
            "database, or leave connection= out."
        )
    while len(checked) >= _MOST_CHECKED:
        checked.pop(next(iter(checked)))
    checked[store.schema_name, home] = None


def _speak(link: Link, talk: Talk[T]) -> T:
    """Run what the talk asks for, on a synchronous connection."""
    answer: Any = None
    error: BaseException | None = None
    try:
        while True:
            statement = talk.send(answer) if error is None else talk.throw(error)
            answer = error = None
            try:
                answer = link.run(statement)
            except BaseException as raised:
                error = raised
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def _speak_async(link: Link, talk: Talk[T]) -> T:
    """Run what the talk asks for, on an asynchronous connection."""
    answer: Any = None
    error: BaseException | None = None
    try:
        while True:
            statement = talk.send(answer) if error is None else talk.throw(error)
            answer = error = None
            try:
                answer = await link.run(statement)
            except BaseException as raised:
                error = raised
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
