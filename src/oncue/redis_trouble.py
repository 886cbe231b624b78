"""What an error of Redis means to a person: what it said, and what to do about it where that is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from oncue.redis_url import RedisUrl

# redis-py puts the command before what the server said of it, as Python would write that.
_PIPELINE = re.compile(r"^Command # \d+ \(.*\) of pipeline caused error: \(?['\"]?(.*?)['\"]?,?\)?$", re.DOTALL)
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_RIGHTS = "its user lacks a right; docs/how-to/redis.md (least rights) lists them"
_AUTHORITY = (
    "its certificate is signed by no authority that is trusted here: name the right one in the URL, as in "
    "rediss://host?ssl_ca_certs=/path/ca.pem"
)
_OURS = "ssl_certfile=/path/client.pem&ssl_keyfile=/path/client.key"
_SIGNED = "it does not trust the certificate in ssl_certfile: have one signed by the authority that it trusts"
# The first that is found in the error counts.
_MEANINGS = (
    (
        "certificate is not valid for",
        "connect by a name that its certificate has, or say ssl_check_hostname=false in the URL",
    ),
    ("certificate has expired", "renew its certificate"),
    ("CERTIFICATE_VERIFY_FAILED", _AUTHORITY),
    ("CERTIFICATE_REQUIRED", f"it wants a certificate of ours: add {_OURS} to the URL"),
    ("ALERT_UNKNOWN_CA", _SIGNED),
    ("used memory > 'maxmemory'", "its memory is full: raise maxmemory, or remove what fills it (redis-cli --bigkeys)"),
    ("MISCONF", "it can't write to its disk; its own log says why"),
    ("READONLY", "it is a replica: connect to the primary"),
    ("no permissions", _RIGHTS),
    ("No permissions", _RIGHTS),
    ("NOPERM", _RIGHTS),
    ("EXEC without MULTI", _RIGHTS),
    ("username-password", "the user or the password in the URL is wrong, or the user is off: redis://user:password@host"),
    ("Authentication required", "it wants a password: write redis://user:password@host"),
    ("CROSSSLOT", "on a cluster a queue's prefix needs a hash tag, as in prefix=%7Bbull%7D"),
)  # fmt: skip


def meaning(error: BaseException, url: RedisUrl) -> str:
    """Return an error's text without a full stop at its end, and after a colon or in brackets what it means.

    Neither holds a password: drivers show none, and of the URL only the names of files are shown.
    """
    said = _PIPELINE.sub(r"\1", str(error)).rstrip(".")
    said = said or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
    known = _known(error, said, url)
    return f"{said} ({known})" if known else said


def _known(error: BaseException, said: str, url: RedisUrl) -> str | None:
    for sign, means in _MEANINGS:
        if sign in said:
            return means
    causes = list(_chain(error))
    secure = url.dsn.startswith("rediss:")
    if any(isinstance(one, ConnectionRefusedError) for one in causes):
        return "nothing listens there: start the server, or mend the address"
    if secure and any(isinstance(one, FileNotFoundError | PermissionError) for one in causes):
        return _unreadable(url)
    if secure and ("WRONG_VERSION_NUMBER" in said or said.startswith("Timeout connecting")):
        return "if that server speaks no TLS, write redis:// instead of rediss://"
    if any(isinstance(one, ConnectionResetError | BrokenPipeError) for one in causes) or "closed by server" in said:
        # Why a server breaks off a handshake often gets lost on the way.
        if secure:
            return f"if that goes on, it may want a certificate of ours that it trusts: {_OURS}"
        return "if that goes on, the server may speak TLS alone: write rediss:// instead of redis://"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreadable(url: RedisUrl) -> str | None:
    """Name the files of the URL that can't be read here: the driver says only that one is missing."""
    missing = []
    for name, path in parse_qsl(urlsplit(url.dsn).query):
        if name in _FILES:
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                missing.append(f"{name}={path}: {error.strerror}")
    return "; ".join(missing) or None
