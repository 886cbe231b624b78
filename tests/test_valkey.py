"""The Redis-speaking servers of the tests do what they say."""

from __future__ import annotations

import pytest
import redis

from tests import valkey


def test_a_server_is_empty_and_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.ping()


@pytest.mark.parametrize("kind", valkey.INSTALLS)
def test_a_killed_server_comes_back_empty_on_its_port(kind: str) -> None:
    with valkey.Server(kind) as server:
        with server.client() as client:
            client.set("a", "1")
        server.kill()
        with server.client() as client, pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        with server.client() as client:
            assert client.dbsize() == 0
