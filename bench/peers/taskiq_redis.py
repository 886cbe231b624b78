"""taskiq on Redis streams with its list of schedules, by its command lines and with their default settings.

What is due later waits in the schedules, which a second program reads once a minute and looks through once a second.
One worker process, where its default is two: as everybody here.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from redis.asyncio import Redis
from taskiq import TaskiqScheduler
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from bench.peers import _program
from bench.records import SLEEP_DONE, SLEEP_S, SLEEP_STARTED, recorder_from_environment

broker = RedisStreamBroker(_program.REDIS_URL or "redis://")
source = ListRedisScheduleSource(_program.REDIS_URL or "redis://")
scheduler = TaskiqScheduler(broker, [source])
recorder = recorder_from_environment()


@broker.task(task_name="noop")
async def noop(index: int, due: float) -> None:
    recorder.record(index, due)


@broker.task(task_name="sleep")
async def sleep(index: int, _due: float) -> None:
    recorder.record(index, SLEEP_STARTED)
    await asyncio.sleep(SLEEP_S)
    recorder.record(index, SLEEP_DONE)


class TaskiqRedis(_program.AsyncPeer):
    async def open(self) -> None:
        await broker.startup()
        await source.startup()

    async def shut(self) -> None:
        await source.shutdown()
        await broker.shutdown()

    async def one(self, kind: str, index: int, due: float) -> None:
        task = noop if kind == "noop" else sleep
        if due > time.time():
            await task.kicker().schedule_by_time(source, datetime.fromtimestamp(due, UTC), index, due)
        else:
            await task.kiq(index, due)

    def worker_command(self) -> list[str]:
        program = shlex.quote(str(Path(sys.executable).parent / "taskiq"))
        module = "bench.peers.taskiq_redis"
        both = f"{program} scheduler {module}:scheduler & exec {program} worker --workers 1 {module}:broker"
        return ["sh", "-c", both]

    def results(self) -> dict[str, int | None]:
        async def count() -> dict[str, int | None]:
            async with Redis.from_url(_program.REDIS_URL) as redis:
                (group,) = await redis.xinfo_groups(broker.queue_name)
                scheduled = [key async for key in redis.scan_iter("schedule:data:*", count=10_000)]
            return {"left": group["pending"] + (group["lag"] or 0) + len(scheduled), "completed": None}

        return self.wait(count())  # type: ignore[no-any-return]


if __name__ == "__main__":
    # Tasks belong to the broker of the module under its real name, not __main__.
    from bench.peers import taskiq_redis  # noqa: PLW0406 - on purpose, see above

    peer = taskiq_redis.TaskiqRedis()
    _program.run(peer)
    peer.close()
