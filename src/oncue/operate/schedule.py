"""Scheduling for callers who have no Python: by the task's name, and once however often a request is sent."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from oncue.errors import InvalidArguments, InvalidJob, UnknownTask
from oncue.job import FINAL, Conflict, Inserted, NewJob
from oncue.operate.actions import due_of
from oncue.operate.given import Delay, Due, Name
from oncue.operate.shape import iso
from oncue.operate.views import Made
from oncue.scheduling import Scheduled, new_job
from oncue.store.operating import AuditRow
from oncue.store.steps import Steps, operate, overview, read
from oncue.store.steps.insert import insert_jobs
from oncue.task import Call, Task

if TYPE_CHECKING:
    from oncue.app import OnCue


_FEW = 20


class Reused(InvalidJob):
    """The idempotency key came with another request before. Nothing was stored."""


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A job to store: see ``OnCue.schedule`` for what each option means. Neither ``delay`` nor ``at``: due now."""

    task: Name
    args: dict[str, Any] = {}
    delay: Delay | None = None
    at: Due | None = None
    key: Name | None = None
    on_conflict: Conflict = "keep"
    group: Name | None = None
    queue: Name | None = None
    priority: Annotated[int, msgspec.Meta(ge=-100, le=100)] | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = None
    metadata: dict[str, Any] | None = None


async def schedule(app: OnCue, who: str, wish: Wish, request: str | None = None) -> tuple[Made, bool]:
    """Store a job, and tell whether it was stored by this very call; ``request`` is the caller's idempotency key.

    Raises UnknownTask, InvalidArguments, InvalidJob, InvalidTime, PayloadTooLarge or Reused: nothing was stored.
    """
    now = app.clock.now()
    job = new_job(_wanted(app, wish), now)
    if wish.delay is not None or wish.at is not None:
        job.scheduled_at = due_of(now, wish.at, wish.delay)
    job.origin = f"api:{who}"
    body = hashlib.sha256(msgspec.json.encode(wish)).hexdigest()
    # With its length, so that no name and key are those of somebody else.
    mine = None if request is None else f"schedule:{len(who)}:{who}:{request}"
    row = AuditRow(0, now, who, "schedule", "job")

    def steps() -> Steps[tuple[Inserted | None, AuditRow | None]]:
        if mine is not None and not (yield from operate.add_audit(row, mine)):
            return None, (yield from operate.audit_of_request(mine))
        yield from _refuse_a_channels(app, wish)
        (made,) = yield from insert_jobs([msgspec.structs.replace(job)])
        detail = _detail(job, made, body)
        if mine is not None:
            yield from operate.settle_audit(mine, f"job:{made.id}", 1, detail)
        else:
            line = msgspec.structs.replace(row, target=f"job:{made.id}", detail=detail)
            yield from operate.add_audit(line)
        return made, None

    made, before = await app.store.change(steps, job.scheduled_at)
    if made is not None:
        app.wake.hint(made.scheduled_at)
        return Made(made.id, made.status, job.task, iso(made.scheduled_at)), True
    return _again(before, body, request), False


def offered(app: OnCue) -> dict[str, Task[Any, Any]]:
    """Return the tasks that may be asked for, by all their names: the application's own.

    Those of its channels send and receive messages, and only a conversation may have them run.
    """
    inner = _inner(app)
    return {name: task for name, task in app.tasks.items() if task.name not in inner}


def _inner(app: OnCue) -> set[str]:
    rooms = [room.tasks for room in app.channels.values()]
    return {one.name for room in rooms for one in (room.receive, room.status, room.send, room.advance)}


def _refuse_a_channels(app: OnCue, wish: Wish) -> Steps[None]:
    """Refuse what would get in the way of a conversation: its person's lane, or the key of a job of its own."""
    if wish.group is not None and wish.group.rpartition(":")[0] in app.channels:
        raise InvalidJob(f"The group {wish.group!r} is that of a person on a channel: take another one.")
    if wish.key is not None and app.channels:
        ids = yield from overview.few_of_key(wish.key, _FEW)
        found = (yield from read.list_jobs(len(ids), ids=ids)) if ids else []
        if any(one.task in _inner(app) and one.state not in FINAL for one in found):
            raise InvalidJob(f"The key {wish.key!r} is that of a conversation's job: take another one.")


def _wanted(app: OnCue, wish: Wish) -> Scheduled:
    tasks = offered(app)
    task = tasks.get(wish.task)
    if task is None:
        known = ", ".join(sorted({one.name for one in tasks.values()})[:20]) or "none"
        raise UnknownTask(f"There is no task {wish.task!r} here. Known are: {known}.")
    text = msgspec.json.encode(wish.args)
    try:
        arguments = task.decode(text.decode())
        if task.decoder is None and wish.args:
            raise msgspec.ValidationError("it takes none")
        text = b"{}" if arguments is None else msgspec.json.encode(arguments)
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidArguments(f"The arguments don't fit {task.name}: {error}.") from error
    call: Call[Any] = Call(task, text.decode())
    return Scheduled(
        call,
        key=wish.key,
        # Without a key there is nothing that it could conflict with.
        on_conflict="keep" if wish.key is None else wish.on_conflict,
        group=wish.group,
        queue=wish.queue,
        priority=wish.priority,
        max_attempts=wish.max_attempts,
        metadata=wish.metadata,
    )


def _detail(job: NewJob, made: Inserted, body: str) -> str:
    kept = {"task": job.task, "status": made.status, "due": iso(made.scheduled_at), "body": body}
    return msgspec.json.encode(kept).decode()


def _again(row: AuditRow | None, body: str, request: str | None) -> Made:
    kept = {} if row is None else msgspec.json.decode(row.detail)
    if row is None or kept.get("body") != body:
        raise Reused(f"The idempotency key {str(request)[:50]!r} came with another request before: take a new one.")
    return Made(int(row.target.removeprefix("job:")), kept["status"], kept["task"], kept["due"])
