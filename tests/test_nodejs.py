"""Tests can run programs of Node against the servers of the tests."""

from __future__ import annotations

import json

import pytest
import redis

from tests.nodejs import Node


def test_a_program_of_node_adds_a_job(node: Node, redis_url: str) -> None:
    (added,) = node.add(redis_url, "images", ("resize", {"width": 3}, {"delay": 60_000, "jobId": "one"}))

    assert added["id"] == "one"
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        stored = client.hgetall("bull:images:one")
    assert json.loads(stored["data"]) == {"width": 3}
    assert int(stored["timestamp"]) == added["timestamp"]


def test_what_a_program_says_is_waited_for(node: Node) -> None:
    with node.start("echo.mjs", env={"GREETING": "ready"}) as program:
        assert program.expect("ready") == "to listen"
        program.tell("hello")
        assert program.expect("heard ") == "hello"
        with pytest.raises(AssertionError, match=r"(?s)ended without a line 'never'.*bye"):
            program.expect("never")


def test_a_program_that_fails_says_why(node: Node) -> None:
    with pytest.raises(AssertionError, match="Cannot find module"):
        node.run("missing.mjs")
