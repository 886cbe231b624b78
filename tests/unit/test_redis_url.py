"""Redis URLs: what is taken from them, what is passed on, and that no error shows a password."""

from __future__ import annotations

import pytest

from oncue.errors import ConfigError
from oncue.redis_url import RedisUrl, is_redis, parse_redis


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("redis://h", "redis://h"),
        ("redis://u:p%40x@h:6380/2?prefix=app&queue=q", "redis://u:p%40x@h:6380/2"),
        (
            "rediss://[::1]:6379/0?ssl_ca_certs=/etc/ca.pem&mode=pubsub",
            "rediss://[::1]:6379/0?ssl_ca_certs=/etc/ca.pem",
        ),
        ("unix:///run/redis.sock?db=3&timers=off", "unix:///run/redis.sock?db=3"),
        ("unix://u:p@/run/redis.sock", "unix://u:p@/run/redis.sock"),
    ],
)
def test_a_url_is_passed_on_but_for_our_own_options(url: str, dsn: str) -> None:
    assert is_redis(url)
    assert parse_redis(url).dsn == dsn


def test_what_is_not_said_is_as_in_bullmq() -> None:
    found = parse_redis("redis://h/0")
    assert found == RedisUrl("redis://h/0", "redis://h/0", "bull", "oncue", "bullmq", timers=True)


def test_what_is_said_is_taken() -> None:
    found = parse_redis("redis://h/0?prefix=%7Bapp%7D&queue=mail&timers=off")
    assert (found.prefix, found.queue, found.mode, found.timers) == ("{app}", "mail", "bullmq", False)
    assert parse_redis("redis://h?mode=pubsub").mode == "pubsub"


@pytest.mark.parametrize(
    ("prefix", "tagged"), [("bull", False), ("{bull}", True), ("a{b}c", True), ("{}", False), ("}{", False)]
)
def test_a_hash_tag_is_found_as_redis_finds_it(prefix: str, tagged: bool) -> None:
    assert parse_redis(f"redis://h?prefix={prefix}").tagged is tagged


@pytest.mark.parametrize(
    "url", ["redis://u:secret@h/0", "redis://:secret@h", "rediss://h?ssl_password=secret", "unix://u:secret@/run/r"]
)
def test_what_is_shown_has_no_password(url: str) -> None:
    found = parse_redis(url)
    assert "secret" not in found.shown
    assert "secret" not in repr(found)
    assert "***" in found.shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis:u:secret@h", "no Redis URL"),
        ("http://u:secret@h", "no Redis URL"),
        ("redis://u:secret@[::1/0", "no usable URL"),
        ("redis://u:secret@h?prefix", "no usable URL"),
        ("redis://u:secret@h?prefx=app", "unknown option 'prefx' in the URL; did you mean prefix?"),
        ("redis://u:secret@h?Queue=app", "did you mean queue?"),
        ("redis://u:secret@h?ssl_ca_cert=x", "did you mean ssl_ca_certs?"),
        ("redis://u:secret@h?socket_timeout=1", "OnCue has prefix, queue, mode, timers, and redis-py db"),
        ("redis://u:secret@h?mode=stream", "mode is bullmq or pubsub, not 'stream'"),
        ("redis://u:secret@h?timers=false", "timers is on or off, not 'false'"),
        ("redis://u:secret@h?mode=pubsub&timers=off", "leave timers on"),
        ("redis://u:secret@h?prefix=", "prefix has 1 to 100 characters"),
        ("redis://u:secret@h?queue=a+b", "queue has 1 to 100 characters and no spaces, not 'a b'"),
        ("redis://u:secret@h?queue=a:b", "no ':' in its name"),
        ("redis://u:se@cret@h", "%40"),
        ("redis://u:secret#x@h", "%23"),
        ("redis://u:secret@h:0/0", "no usable host"),
        ("redis://u:secret@", "no usable host"),
        ("redis://u:secret@h/db", "the number of the database"),
        ("unix://u:secret@h/run/redis.sock", "three slashes"),
        ("unix:///", "three slashes"),
    ],
)
def test_a_url_that_cannot_work_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_redis(url)
    assert said in str(caught.value)
    assert "cret" not in str(caught.value).replace("secret_", "")
