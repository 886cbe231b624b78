"""What ``oncue doctor`` says of the bridge: whether adoption keeps up, and whether Node listens where jobs go."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, Literal

from oncue.bridge.adopt import Adopter, Adoptions
from oncue.bridge.connect import bullmq_queue, connect, prove_rights
from oncue.bridge.handoff import NodeQueues, Target, default_redis
from oncue.errors import ConfigError
from oncue.redis_link import Server, driver
from oncue.redis_trouble import meaning
from oncue.redis_url import RedisUrl
from oncue.store.views import Check
from oncue.words import counted

if TYPE_CHECKING:
    from oncue.app import OnCue

_PATIENCE = 8.0
_LATE = 10.0
_AHEAD = 5.0
_SETTINGS = "See docs/how-to/redis.md for the rights and settings that it needs."


async def adoption_checks(app: OnCue) -> list[Check]:
    """Return what is to be said of each queue that is adopted; none where nothing is."""
    return [await _adoption(app, one) for one in app.adoptions.values()]


async def _adoption(app: OnCue, adoption: Adoptions) -> Check:
    name = f"adoption of {adoption.queue}"
    adopter: Adopter | None = None
    try:
        adopter = Adopter(adoption, app.wake_url, app.store, app.wake, app.clock, app.retention_us, app.sweep_us)
        async with asyncio.timeout(_PATIENCE):
            found = await adopter.examine()
    except ConfigError as error:
        return Check(name, "FAIL", str(error))
    except Exception as error:
        said = f"its jobs wait in BullMQ, because Redis fails: {meaning(error, adoption.url(app.wake_url))}"
        return Check(name, "FAIL", said, _SETTINGS)
    finally:
        if adopter is not None:
            await adopter.close()
    number = f"{found.wanted:,}{' or more' if found.more else ''}"
    if found.refused:
        said = f"{counted(found.refused, 'job')} can't be adopted and stay in BullMQ; {found.why}"
        return Check(name, "FAIL", said, "Mend the function or the producer; each sweep tries again.")
    if found.age > _LATE:
        remedy = "Is a worker of this application alive, with this code and this Redis? Its log says what fails."
        return Check(name, "FAIL", f"{number} to be adopted, one for {found.age:.0f} s", remedy)
    if found.ahead > _AHEAD:
        said = f"a producer's clock is {found.ahead:.0f} s ahead of ours, and jobs are due by it"
        return Check(name, "warn", said, "Run NTP on all hosts.")
    if found.remark is not None:
        return Check(name, "warn", f"until they are adopted, jobs are in a Redis that {found.remark}")
    return Check(name, "ok", f"{number} to be adopted; {found.left:,} left to Node")


async def node_checks(app: OnCue) -> list[Check]:
    """Return what is to be said of each BullMQ queue that jobs are handed to; none where none are."""
    checks: dict[tuple[str, str, str], Check] = {}
    for target in app.node_targets:
        try:
            url = NodeQueues(default_redis(app.wake_url)).get(target).url
        except ConfigError as error:
            checks["", "", target.queue] = Check(f"node queue {target.queue}", "FAIL", str(error))
            continue
        if (key := (url.dsn, url.prefix, target.queue)) not in checks:
            checks[key] = await _node_queue(url, target)
    return list(checks.values())


async def _node_queue(url: RedisUrl, target: Target) -> Check:
    name, link = f"node queue {target.queue}", None
    try:
        async with asyncio.timeout(_PATIENCE):
            link, server = await connect(url)
            queue = bullmq_queue(url, target.queue, link)
            await prove_rights(link, queue.toKey("oncue-proof"), adds=True)
            waiting, running = await _count(queue, link)
            paused = bool(await link.hexists(queue.toKey("meta"), "paused"))
            workers = await _workers(url, target.queue, link, server)
    except Exception as error:
        said = f"no job can be handed over, because Redis at {url.shown} fails: {meaning(error, url)}"
        return Check(name, "FAIL", said, f"Its jobs are snoozed until it works. {_SETTINGS}")
    finally:
        if link is not None:
            await asyncio.gather(link.aclose(), return_exceptions=True)
    said = f"{counted(waiting, 'job waits', 'jobs wait')}, {counted(running, 'runs', 'run')}"
    if paused:
        return Check(
            name, "warn", f"it is paused in BullMQ; {said}", "Where that was forgotten: queue.resume() in Node"
        )
    if workers is None:
        level: Literal["ok", "warn"] = "warn" if waiting and not running else "ok"
        return Check(name, level, f"{said}; who listens can't be told without the right to CLIENT LIST")
    if not workers:
        remedy = f"Start one in Node: new Worker({target.queue!r}, ...), on this Redis and with prefix {url.prefix!r}."
        return Check(name, "FAIL" if waiting else "warn", f"no worker in Node listens; {said}", remedy)
    if server.remark is not None:
        return Check(name, "warn", f"{said}; Redis {server.remark}")
    return Check(name, "ok", f"{counted(workers, 'worker')} in Node; {said}")


async def _count(queue: Any, link: Any) -> tuple[int, int]:
    lists = [await link.llen(queue.toKey(name)) for name in ("wait", "paused", "active")]
    prioritized = await link.zcard(queue.toKey("prioritized"))
    return int(lists[0] + lists[1] + prioritized), int(lists[2])


async def _workers(url: RedisUrl, queue: str, link: Any, server: Server) -> int | None:
    """Return how many listen; None where the server doesn't tell. BullMQ names the connection that a worker waits on
    after its queue."""
    try:
        said = await (link.client_list(target_nodes="all") if server.cluster else link.client_list())
    except driver("redis").ResponseError:
        return None
    name = f"{url.prefix}:{base64.b64encode(queue.encode()).decode()}"
    lists = said.values() if isinstance(said, dict) else [said]
    names: list[str] = [one.get("name", "") for clients in lists for one in clients]
    return sum(one == name or one.startswith(f"{name}:w:") for one in names)
