"""The URL of a Redis server: what OnCue takes from it, and what the driver gets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal
from urllib.parse import SplitResult, quote, urlencode

from oncue.dsn import hide, take_apart
from oncue.errors import ConfigError

DEFAULT_PREFIX = "bull"
DEFAULT_QUEUE = "oncue"
SCHEMES = ("redis", "rediss", "unix")

Mode = Literal["bullmq", "pubsub"]

_EXAMPLE = "redis://user:password@host:6379/0?prefix=bull&queue=oncue"
_OURS = ("prefix", "queue", "mode", "timers")
# What redis-py takes from a URL and may safely be given there; timeouts and retries are OnCue's own affair.
_DRIVERS = (
    "db", "protocol", "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname",
    "ssl_ciphers", "ssl_keyfile", "ssl_min_version", "ssl_password",
)  # fmt: skip
_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,100}")
_TAG = re.compile(r"[^{]*\{[^}]+\}")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]+)(:([0-9]+))?")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A Redis URL, taken apart."""

    dsn: str = field(repr=False)
    """What redis-py connects by: the URL without OnCue's own options. It holds the password."""
    shown: str
    """The URL for logs and errors, with ``***`` in place of a password."""
    prefix: str = DEFAULT_PREFIX
    """The first part of every key, as BullMQ has it; ``{...}`` in it keeps a queue on one node of a cluster."""
    queue: str = DEFAULT_QUEUE
    """The BullMQ queue that carries OnCue's own deliveries."""
    mode: Mode = "bullmq"
    """``bullmq``: hints and delayed jobs. ``pubsub``: hints alone."""
    timers: bool = True
    """Whether workers also start jobs by their own timers, as they should, or only when BullMQ delivers one."""

    @property
    def tagged(self) -> bool:
        """Whether all keys of the queue have one hash tag, as Redis Cluster needs it."""
        return _TAG.match(self.prefix) is not None


def is_redis(url: str) -> bool:
    """Tell whether a URL is of Redis, by its scheme alone."""
    return url.partition("://")[0] in SCHEMES and "://" in url


def parse_redis(url: str) -> RedisUrl:
    """Take a Redis URL apart: ``redis://``, ``rediss://`` (TLS) or ``unix://`` (a socket).

    Raises ConfigError for another scheme, a URL that is none, an option that neither OnCue nor the driver knows, or a
    value that can't work. It never shows the password.
    """
    shown = hide(url)
    parts, options = take_apart(url, shown, _EXAMPLE)
    _check(parts, shown)
    ours: dict[str, str] = {}
    theirs: dict[str, str] = {}
    for name, value in options:
        if name in _OURS:
            ours[name] = value
        elif name in _DRIVERS:
            theirs[name] = value
        else:
            raise ConfigError(f"{shown!r}: unknown option {name!r} in the URL; {_instead(name)}")
    query = urlencode(theirs, quote_via=quote, safe="/,*:")
    dsn = f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"
    mode, timers = _mode(ours, shown)
    prefix = _name(ours, "prefix", DEFAULT_PREFIX, shown)
    queue = _name(ours, "queue", DEFAULT_QUEUE, shown)
    if ":" in queue:
        raise ConfigError(f"{shown!r}: a BullMQ queue has no ':' in its name, so {queue!r} can't be one.")
    return RedisUrl(dsn, shown, prefix, queue, mode, timers)


def _instead(name: str) -> str:
    near = get_close_matches(name.lower(), _OURS + _DRIVERS, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else f"OnCue has {', '.join(_OURS)}, and redis-py {', '.join(_DRIVERS)}."


def _mode(options: dict[str, str], shown: str) -> tuple[Mode, bool]:
    mode, timers = options.get("mode", "bullmq"), options.get("timers", "on")
    if timers not in ("on", "off"):
        raise ConfigError(f"{shown!r}: timers is on or off, not {timers!r}.")
    if mode == "bullmq":
        return "bullmq", timers == "on"
    if mode != "pubsub":
        raise ConfigError(f"{shown!r}: mode is bullmq or pubsub, not {mode!r}.")
    if timers == "off":
        raise ConfigError(f"{shown!r}: with mode=pubsub nothing but the workers' timers starts jobs; leave timers on.")
    return "pubsub", True


def _name(options: dict[str, str], which: str, default: str, shown: str) -> str:
    value = options.get(which, default)
    if _NAME.fullmatch(value) is None:
        raise ConfigError(f"{shown!r}: {which} has 1 to 100 characters and no spaces, not {value!r}.")
    return value


def _check(parts: SplitResult, shown: str) -> None:
    if not is_redis(shown):
        raise ConfigError(f"{shown!r} is no Redis URL. Write it as {_EXAMPLE}, rediss://... for TLS.")
    if parts.fragment or parts.netloc.count("@") > 1:
        raise ConfigError(
            f"{shown!r} has a '#' or a second '@': in a user name or password write %23 and %40 for them."
        )
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme == "unix":
        if host or len(parts.path) < 2:
            raise ConfigError(f"{shown!r} names no socket. Write its path after three slashes: unix:///run/redis.sock")
        return
    found = _HOST.fullmatch(host)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ConfigError(
            f"{shown!r} names no usable host: write host or host:6379, an IPv6 address in brackets, and in a password "
            "%2F for '/'."
        )
    if not re.fullmatch(r"(/[0-9]{0,6})?", parts.path):
        raise ConfigError(f"{shown!r}: after the host comes the number of the database, as in /0, not {parts.path!r}.")
