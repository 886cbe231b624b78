"""What both directions of the bridge need of a BullMQ queue: a connection, scripts on BullMQ's own, its events."""

from __future__ import annotations

import asyncio
from typing import Any

from oncue.redis_link import Server, ask, bullmq_options, client, driver
from oncue.redis_url import RedisUrl

_ADD = "redis.call('SET', KEYS[1], '', 'PX', 1000) "
_REMOVE = "return redis.call('DEL', KEYS[1])"


async def connect(url: RedisUrl) -> tuple[Any, Server]:
    """Return a proved `client`, one of a cluster where the server is a node of one. Close it by ``aclose()``.

    Raises redis.RedisError, or ConfigError.
    """
    link = client(url)
    try:
        server = await ask(link, url)
    except BaseException:
        await asyncio.gather(link.aclose(), return_exceptions=True)
        raise
    if server.cluster:
        await link.aclose()
        link = client(url, cluster=True)
    return link, server


async def prove_rights(link: Any, key: str, *, adds: bool) -> None:
    """Have a script remove a key that nobody has, which it makes where jobs are to be added: whoever only looks learns
    too late that the user may not write, or that the memory is full. Raises redis.RedisError."""
    async with link.pipeline(transaction=adds) as pipe:
        pipe.eval(_ADD + _REMOVE if adds else _REMOVE, 1, key)
        await pipe.execute()


def bullmq_queue(url: RedisUrl, name: str, link: Any) -> Any:
    """Return a ``bullmq.Queue`` over a connection."""
    return driver("bullmq").Queue(name, bullmq_options(url, link))


def guarded_removal(queue: Any, link: Any, guard: str) -> Any:
    """Return BullMQ's script that removes a job, with Lua before it that may return and so keep the job."""
    return link.register_script(guard + queue.backend.scripts.commands["removeJob"].script)


def stream_entries(said: Any) -> list[tuple[str, dict[str, str]]]:
    """Return the entries in redis-py's answer to XREAD of one stream, which has another form on each kind of link."""
    if not said:
        return []
    ((_, entries),) = said.items() if isinstance(said, dict) else said
    if entries and isinstance(entries[0], list):
        entries = entries[0]
    return list(entries)
