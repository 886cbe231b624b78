"""What can be done over HTTP; each is in the audit."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

import msgspec

from oncue.errors import ConfigError, InvalidJob, UnknownJob
from oncue.operate import Filter, Operator
from oncue.operate.actions import Action
from oncue.operate.given import Delay, Due
from oncue.operate.jobs import known_id
from oncue.operate.schedule import Wish
from oncue.operate.talks import TalkAction
from oncue.operate.views import Done, Made, ManyCounted, ManyDone
from oncue.web.api.operation import Asked, BadRequest, Operation, from_texts

KEY = "idempotency-key"
KEY_PATTERN = "^[!-~]{1,200}$"
Handler = Callable[[Operator, Asked], Awaitable[Any]]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing is to be said."""


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a job is to be due: a time, or seconds from now."""

    at: Due | None = None
    delay: Delay | None = None


class Many(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Do it to all that match. Without ``confirm`` they are only counted, and a ``token`` is returned to send with it.

    The filter must name something. ``at`` or ``delay`` for ``reschedule``.
    """

    action: Action
    filter: dict[str, str | bool | None]
    at: Due | None = None
    delay: Delay | None = None
    token: Annotated[str, msgspec.Meta(max_length=2_000)] | None = None
    confirm: Annotated[int, msgspec.Meta(ge=0)] | None = None


async def _schedule(operator: Operator, asked: Asked) -> tuple[Made, int]:
    given = asked.request.headers.getlist(KEY)
    if len(given) > 1 or (given and not re.match(KEY_PATTERN, given[0])):
        raise BadRequest(400, "Idempotency-Key is given once, with 1 to 200 printable ASCII characters and no space.")
    wish: Wish = asked.body
    made, new = await operator.schedule(wish, given[0] if given else None)
    return made, 201 if new else 200


def _job(action: Action) -> Handler:
    async def act(operator: Operator, asked: Asked) -> Done:
        id, body = known_id(asked.path["id"]), asked.body
        if isinstance(body, Move):
            return await operator.act(action, id, at=body.at, delay=body.delay)
        return await operator.act(action, id)

    return act


async def _many(operator: Operator, asked: Asked) -> ManyCounted | ManyDone:
    body: Many = asked.body
    try:
        filter = from_texts({name: value for name, value in body.filter.items() if value is not None}, Filter)
    except msgspec.ValidationError as error:
        raise BadRequest(422, f"The filter does not fit: {error}.") from error
    if body.confirm is None:
        return await operator.count(body.action, filter)
    if body.token is None:
        raise InvalidJob("Send the token of the count with `confirm`.")
    return await operator.act_on_many(body.action, filter, body.token, body.confirm, at=body.at, delay=body.delay)


def _pause(kind: Literal["queue", "task", "schedule"], *, paused: bool) -> Handler:
    async def act(operator: Operator, asked: Asked) -> Done:
        return await operator.pause(kind, asked.path["name"], paused=paused)

    return act


async def _reconnect(operator: Operator, _: Asked) -> Done:
    return await operator.reconnect()


async def _run_schedule(operator: Operator, asked: Asked) -> Done:
    return await operator.run_schedule(asked.path["name"])


def _talk(action: TalkAction) -> Handler:
    async def act(operator: Operator, asked: Asked) -> Done:
        id = known_id(asked.path["id"], "conversation")
        if not operator.app.channels:
            raise UnknownJob(f"There is no conversation {id}: this application has no channel.")
        try:
            return await operator.steer_talk(action, id)
        except ConfigError as error:
            # Another application of this database declares its channel.
            raise InvalidJob(str(error)) from error

    return act


def _act(path: str, name: str, summary: str, handler: Handler, body: Any = Nothing) -> Operation:
    return Operation("POST", path, "operate", name, summary, Done, handler, body=body, acts=True)


ACTS = (
    Operation(
        "POST", "/jobs", "schedule", "scheduleJob",
        "Store a job. With an Idempotency-Key, once however often it is sent.", Made, _schedule, body=Wish, status=201,
        headers=(KEY,),
    ),
    Operation(
        "POST", "/jobs/many", "operate", "actOnMany", "Count the jobs that match, then do it to them.",
        ManyCounted | ManyDone, _many, body=Many, acts=True,
    ),
    _act("/jobs/{id}/run-now", "runJobNow", "Make a waiting job due now.", _job("run-now")),
    _act("/jobs/{id}/retry", "retryJob", "Put a discarded or cancelled job back.", _job("retry")),
    _act("/jobs/{id}/cancel", "cancelJob", "Cancel a job, or ask one that runs to stop.", _job("cancel")),
    _act("/jobs/{id}/reschedule", "rescheduleJob", "Move a waiting job.", _job("reschedule"), Move),
    _act("/queues/{name}/pause", "pauseQueue", "Start no more jobs of a queue.", _pause("queue", paused=True)),
    _act("/queues/{name}/resume", "resumeQueue", "Start the jobs of a queue again.", _pause("queue", paused=False)),
    _act("/tasks/{name}/pause", "pauseTask", "Start no more jobs of a task.", _pause("task", paused=True)),
    _act("/tasks/{name}/resume", "resumeTask", "Start the jobs of a task again.", _pause("task", paused=False)),
    _act("/schedules/{name}/pause", "pauseSchedule", "Fire no more.", _pause("schedule", paused=True)),
    _act("/schedules/{name}/resume", "resumeSchedule", "Fire again.", _pause("schedule", paused=False)),
    _act("/schedules/{name}/run-now", "runSchedule", "Make a job of a schedule now.", _run_schedule),
    _act(
        "/workers/reconnect", "reconnectWorkers",
        "Have all whose wake channel doesn't work connect it anew: workers, and the process that answers.", _reconnect,
    ),
    _act("/conversations/{id}/pause", "pauseConversation", "Send nothing more for now.", _talk("pause")),
    _act("/conversations/{id}/resume", "resumeConversation", "Go on where it stopped.", _talk("resume")),
    _act("/conversations/{id}/restart", "restartConversation", "End it and begin anew.", _talk("restart")),
    _act("/conversations/{id}/stop", "stopConversation", "End it for good.", _talk("stop")),
    _act("/conversations/{id}/takeover", "takeOver", "Have a human look after the person.", _talk("takeover")),
    _act("/conversations/{id}/release", "release", "Give the person back to the conversation.", _talk("release")),
)  # fmt: skip
