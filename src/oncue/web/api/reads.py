"""What can be looked at over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from oncue.errors import UnknownJob
from oncue.operate import Filter, Operator
from oncue.operate.flows import FIRES
from oncue.operate.given import PLAIN
from oncue.operate.jobs import known_id
from oncue.operate.talk_views import ChannelView, Person, PersonLife, TalkLife, TalkPage
from oncue.operate.views import (
    AuditPage,
    Blocker,
    Health,
    JobLife,
    JobPage,
    Lane,
    Overview,
    Schedule,
    ScheduleDetail,
    Source,
    Worker,
)
from oncue.web.api.operation import Asked, Operation

Cursor = Annotated[str, msgspec.Meta(pattern="^[0-9]{0,18}$", description="The `next` of the page before.")]
Limit = Annotated[int, msgspec.Meta(ge=1, le=200)]


class JobsQuery(Filter, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs, and which page of them."""

    cursor: Cursor | None = None
    limit: Limit = 50

    def filter(self) -> Filter:
        """Return the filter without the page."""
        return Filter(**{name: getattr(self, name) for name in Filter.__struct_fields__})


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: to what, and which page."""

    target: Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=PLAIN)] | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class TalksQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which conversations, and which page of them. ``ended``: both that are done and that were stopped."""

    state: Literal["active", "paused", "parked", "done", "stopped", "ended"] | None = None
    conversation: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=PLAIN)] | None = None
    person: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    channel: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=PLAIN)] | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class PeopleQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Who: an address as people write it, the messenger's id of the person, or ``p17``."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=PLAIN)]
    channel: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=PLAIN)] | None = None


class FiresQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How many next fires."""

    n: Annotated[int, msgspec.Meta(ge=1, le=100)] = FIRES


class Checks(msgspec.Struct, frozen=True):
    """All checks."""

    items: list[Health]
    next: None = None


class Lanes(msgspec.Struct, frozen=True):
    """Queues, or tasks, by name."""

    items: list[Lane]
    next: None = None


class Schedules(msgspec.Struct, frozen=True):
    """The schedules by name."""

    items: list[Schedule]
    next: None = None


class Workers(msgspec.Struct, frozen=True):
    """The registered workers."""

    items: list[Worker]
    next: None = None


class Sources(msgspec.Struct, frozen=True):
    """The sources by name."""

    items: list[Source]
    next: None = None


class Blockers(msgspec.Struct, frozen=True):
    """What jobs wait behind: of more than 500 those with the most jobs."""

    items: list[Blocker]
    next: None = None


class People(msgspec.Struct, frozen=True):
    """Those whom a name fits."""

    items: list[Person]
    next: None = None


class Channels(msgspec.Struct, frozen=True):
    """The channels of which anything is known, by name."""

    items: list[ChannelView]
    next: None = None


async def _overview(operator: Operator, _: Asked) -> Overview:
    return await operator.overview()


async def _jobs(operator: Operator, asked: Asked) -> JobPage:
    query: JobsQuery = asked.query
    return await operator.page(query.filter(), query.cursor, query.limit)


async def _job(operator: Operator, asked: Asked) -> JobLife:
    return await operator.job(known_id(asked.path["id"]))


async def _queues(operator: Operator, _: Asked) -> Lanes:
    return Lanes(await operator.lanes("queues"))


async def _tasks(operator: Operator, _: Asked) -> Lanes:
    return Lanes(await operator.lanes("tasks"))


async def _schedules(operator: Operator, _: Asked) -> Schedules:
    return Schedules(await operator.flows.schedules())


async def _schedule(operator: Operator, asked: Asked) -> ScheduleDetail:
    return await operator.flows.schedule(asked.path["name"], asked.query.n)


async def _workers(operator: Operator, _: Asked) -> Workers:
    return Workers(await operator.flows.workers())


async def _sources(operator: Operator, _: Asked) -> Sources:
    return Sources(await operator.flows.sources())


async def _blockers(operator: Operator, _: Asked) -> Blockers:
    return Blockers(await operator.flows.blockers())


async def _checks(operator: Operator, _: Asked) -> Checks:
    return Checks(await operator.checks())


async def _audit(operator: Operator, asked: Asked) -> AuditPage:
    query: AuditQuery = asked.query
    return await operator.audit(query.cursor, query.limit, query.target)


async def _talks(operator: Operator, asked: Asked) -> TalkPage:
    _has_talks(operator)
    query: TalksQuery = asked.query
    return await operator.talks(query.state, query.conversation, query.person, query.cursor, query.limit, query.channel)


def _has_talks(operator: Operator) -> None:
    if not operator.app.channels:
        raise UnknownJob("This application has no conversations.")


async def _talk(operator: Operator, asked: Asked) -> TalkLife:
    _has_talks(operator)
    return await operator.talk(known_id(asked.path["id"], "conversation"))


async def _people(operator: Operator, asked: Asked) -> People:
    _has_talks(operator)
    return People(await operator.people(asked.query.name, asked.query.channel))


async def _person(operator: Operator, asked: Asked) -> PersonLife:
    _has_talks(operator)
    return await operator.person(known_id(asked.path["id"], "person"))


async def _channels(operator: Operator, _: Asked) -> Channels:
    return Channels(await operator.channels())


READS = (
    Operation("GET", "/overview", "read", "overview", "How things are now.", Overview, _overview),
    Operation(
        "GET", "/jobs", "read", "listJobs", "Jobs that match, the newest first, by pages.", JobPage, _jobs,
        query=JobsQuery, tagged=True,
    ),
    Operation("GET", "/jobs/{id}", "read", "showJob", "One job's whole life.", JobLife, _job, tagged=True),
    Operation("GET", "/queues", "read", "listQueues", "The queues and their jobs.", Lanes, _queues, tagged=True),
    Operation("GET", "/tasks", "read", "listTasks", "The tasks and their jobs.", Lanes, _tasks, tagged=True),
    Operation("GET", "/schedules", "read", "listSchedules", "What recurs.", Schedules, _schedules, tagged=True),
    Operation(
        "GET", "/schedules/{name}", "read", "showSchedule", "A schedule, its next `n` fires and its last ten.",
        ScheduleDetail, _schedule, query=FiresQuery, tagged=True,
    ),
    Operation("GET", "/workers", "read", "listWorkers", "Who is there to run jobs.", Workers, _workers, tagged=True),
    Operation("GET", "/sources", "read", "listSources", "Tables that make jobs.", Sources, _sources, tagged=True),
    Operation(
        "GET", "/blockers", "read", "listBlockers", "What jobs wait behind: of over 500 those with the most jobs.",
        Blockers, _blockers, tagged=True,
    ),
    Operation("GET", "/checks", "read", "check", "All checks, with their remedies.", Checks, _checks),
    Operation(
        "GET", "/audit", "read", "listAudit", "What was done, the latest first.", AuditPage, _audit, query=AuditQuery,
        tagged=True,
    ),
    Operation(
        "GET", "/conversations", "read", "listConversations", "Conversations, the newest first.", TalkPage, _talks,
        query=TalksQuery, tagged=True,
    ),
    Operation(
        "GET", "/conversations/{id}", "read", "showConversation", "A conversation and what was said.", TalkLife, _talk,
        tagged=True,
    ),
    Operation(
        "GET", "/people", "read", "findPeople", "Those whom a name or an address fits.", People, _people,
        query=PeopleQuery, tagged=True,
    ),
    Operation(
        "GET", "/people/{id}", "read", "showPerson", "A person, and what was said in all their conversations.",
        PersonLife, _person, tagged=True,
    ),
    Operation(
        "GET", "/channels", "read", "listChannels", "Whether each channel sends, and why not.", Channels, _channels,
        tagged=True,
    ),
)  # fmt: skip
