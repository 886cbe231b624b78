"""Telling somebody of an alert: by a post to a URL, or by a function."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from oncue.threads import Threads

if TYPE_CHECKING:
    from oncue.alerts import Alert, Target

PATIENCE = 20.0
"""Seconds that telling may take."""


async def tell(target: Target, alert: Alert) -> None:
    """Post it to a URL, or call a function with it; what that raises is raised."""
    if isinstance(target, str):
        await _post(target, msgspec.json.encode(alert))
        return
    call = type(target).__call__
    asynchronous = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call)
    answer = target(alert) if asynchronous else await _in_thread(partial(target, alert))
    if inspect.isawaitable(answer):
        await answer


async def _in_thread(call: Callable[[], object]) -> object:
    """Call what may block: in the loop it would hold up every job of this process, and its worker be taken for dead."""
    # A daemon: one that never returns keeps no process alive.
    thread = Threads(1)
    try:
        return await thread.submit(call, lambda: None)
    finally:
        thread.close()


async def _post(url: str, body: bytes) -> None:
    """Post JSON; anything but a 2xx raises."""
    headers = {"Content-Type": "application/json", "User-Agent": "oncue"}
    try:
        import httpx
    except ModuleNotFoundError:
        await asyncio.to_thread(_post_in_thread, url, body, headers)
        return
    # A redirect is no 2xx and not followed; what it says besides, however long, is not read.
    with _unlogged(str(httpx.URL(url))):
        async with (
            httpx.AsyncClient(timeout=PATIENCE / 2) as client,
            client.stream("POST", url, content=body, headers=headers) as answer,
        ):
            if not answer.is_success:
                raise OSError(f"it answered {answer.status_code}")


@contextlib.contextmanager
def _unlogged(url: str) -> Iterator[None]:
    """Keep a hook's address, which is its password, out of what httpx logs of its requests."""

    def is_other(record: logging.LogRecord) -> bool:
        return url not in record.getMessage()

    logger = logging.getLogger("httpx")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _post_in_thread(url: str, body: bytes, headers: dict[str, str]) -> None:
    import urllib.error
    import urllib.request

    class Stay(urllib.request.HTTPRedirectHandler):
        # It would be asked by GET there, without the alert, and its 200 be taken for a proof that somebody was told.
        def redirect_request(self, *_: object) -> None:
            return None

    request = urllib.request.Request(url, body, headers)  # noqa: S310 - an alert's URL is http or https
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=PATIENCE / 2):
            pass
    except urllib.error.HTTPError as error:
        raise OSError(f"it answered {error.code}") from None


def why(error: Exception, target: Target) -> str:
    """Return an error as the log may have it."""
    # A hook's address is its password: no more than the host is shown.
    if not isinstance(target, str):
        return f"{type(error).__name__}: {error}"
    return f"{host(target)}: {type(error).__name__}" + (f": {error}" if type(error) is OSError else "")


def host(url: str) -> str:
    """Return the host of a URL; '' where it has none."""
    return urlsplit(url).hostname or ""
