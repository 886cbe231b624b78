"""Connections to Redis, for waking and for the bridge to BullMQ: the drivers' traps are mended here, once."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import Any

from oncue.errors import ConfigError
from oncue.redis_url import RedisUrl

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 15.0
"""So long an answer may take. BullMQ's blocking read lasts up to 10 s: redis-py's default of 5 s would break it off
again and again, and None would wait for ever on a server that hangs."""

_MOST = 16
_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says about itself."""

    version: str
    cluster: bool
    """Whether it is a node of a Redis Cluster."""
    eviction: str
    """What it does when its memory is full; anything but ``noeviction`` may drop keys of BullMQ."""
    used: int = 0
    """Bytes that its data takes, and ``limit``: may take at most; 0 is no limit, or none that it tells."""
    limit: int = 0

    @property
    def remark(self) -> str | None:
        """None, or what a person should change in its settings: the text goes on after its name."""
        if self.eviction not in ("", "noeviction"):
            return (
                f"drops keys when its memory is full (maxmemory-policy {self.eviction}), and BullMQ needs them: "
                "CONFIG SET maxmemory-policy noeviction"
            )
        if self.limit and self.used > _FULL * self.limit:
            return (
                f"has used {self.used / 1e6:.1f} of the {self.limit / 1e6:.1f} MB that maxmemory allows, and then "
                "refuses jobs: raise it, or remove what fills it (redis-cli --bigkeys)"
            )
        return None


def driver(name: str = "redis.asyncio") -> Any:
    """Import a module of the drivers, such as ``bullmq``. Raises ConfigError where it isn't installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"Redis needs two more packages ({error}): pip install 'oncue[redis]'") from error


def client(url: RedisUrl, *, answer: float = ANSWER_SECONDS, cluster: bool = False, retries: int = 1) -> Any:
    """Return a ``redis.asyncio.Redis`` with a pool of its own; nothing is connected yet. Close it by ``aclose()``.

    Texts come as ``str``. A command that finds its connection broken is tried once more on a new one (``retries``),
    and then raises: how to go on is for the caller to decide. ``answer``: seconds that an answer may take.
    ``cluster``: the server is a node of a cluster, so commands follow their keys (see `ask`). Raises ConfigError.
    """
    return _client(driver(), driver("redis.asyncio.retry"), url, answer, retries, cluster=cluster)


def waiting_client(url: RedisUrl, *, answer: float) -> Any:
    """Return a ``redis.Redis`` for a thread that may wait; else as `client`. Close it by ``close()``."""
    return _client(driver("redis"), driver("redis.retry"), url, answer, 0, cluster=False)


def _client(redis: Any, retry: Any, url: RedisUrl, answer: float, retries: int, *, cluster: bool) -> Any:
    options: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": answer,
        "socket_connect_timeout": min(CONNECT_SECONDS, answer),
        "socket_keepalive": True,
        "health_check_interval": 30,
        "retry": retry.Retry(driver("redis.backoff").NoBackoff(), retries),
    }
    if url.dsn.startswith("unix:"):
        # redis-py hands these on to any kind of connection, and a socket of the file system refuses them.
        del options["socket_keepalive"]
    try:
        if cluster:
            return redis.RedisCluster.from_url(url.dsn, **options)
        # Who finds every connection busy waits for one. BullMQ's workers ask for as many jobs at once as they may run.
        pool = redis.BlockingConnectionPool.from_url(url.dsn, max_connections=_MOST, timeout=answer, **options)
        return redis.Redis.from_pool(pool)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"redis-py can't use {url.shown!r}: {error}.") from None


async def ask(link: Any, url: RedisUrl) -> Server:
    """Ask the server what it is, and check that it suits ``url``. Raises redis.RedisError, or ConfigError.

    On a node of a cluster, all keys of a queue have to lie on one node: their prefix needs a hash tag.
    """
    said = await link.info()
    server = Server(
        str(said.get("redis_version") or "7.0.8"),
        bool(said.get("cluster_enabled")),
        str(said.get("maxmemory_policy") or ""),
        int(said.get("used_memory") or 0),
        int(said.get("maxmemory") or 0),
    )
    if server.cluster and not url.tagged:
        raise ConfigError(
            f"{url.shown!r} is a node of a Redis Cluster, where the keys of a queue must lie together: write the "
            f"prefix in braces, as in prefix=%7B{url.prefix}%7D (which is {{{url.prefix}}}), in Node as well."
        )
    return server


def bullmq_options(url: RedisUrl, link: Any) -> dict[str, Any]:
    """Return the options for ``bullmq.Queue``, ``QueueEvents`` or ``Worker`` over a `client`; add your own to them.

    BullMQ's own clients would retry a command for minutes. A ``Queue`` or ``Worker`` closes ``link`` with itself; see
    `leave_open`.
    """
    return {"connection": link, "prefix": url.prefix}


def tell_version(worker: Any, server: Server) -> None:
    """Tell a ``bullmq.Worker`` the server's version, before ``run()``.

    It never asks by itself, and then rounds every delay up to whole seconds; were it to ask, it would also raise a
    Python warning for each eviction policy that it doesn't like.
    """
    lower = importlib.import_module("bullmq.utils").isRedisVersionLowerThan
    for connection in {worker.backend.connection, worker.backend.blocking_connection} - {None}:
        connection.version = server.version
        connection.capabilities = {
            "canBlockFor1Ms": not lower(server.version, "7.0.8"),
            "canDoubleTimeout": not lower(server.version, "6.0.0"),
        }


def leave_open(user: Any) -> None:
    """Have a ``bullmq.Queue`` or ``Worker`` leave its link open when it is closed: others use it as well."""
    user.backend.owns_connection = False
    # Without one of its own it blocks over the link's pool, as it did before.
    user.backend.blocking_connection = None


async def end(*tasks: asyncio.Task[Any], again: float = 0.2) -> None:
    """Cancel tasks that use a link, and wait for their end; what they raise is dropped.

    A cancellation that meets redis-py at a bad moment is lost, or comes out as an error of the connection, which such a
    task survives. So it is repeated, each time after ``again`` seconds, which should do for what a task has to tidy up.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again)
    await asyncio.gather(*tasks, return_exceptions=True)
