"""No fault of the network makes a transport raise, and none is taken for more than it proves."""

from __future__ import annotations

from typing import get_args

import pytest

from oncue.transport import Outgoing, Text
from tests.transport.front import TAKEN, Fault, Front
from tests.transport.kinds import Kind

FAULTS: tuple[Fault, ...] = get_args(Fault)
NEEDS_TIME_OUT = ("hang", "hang_after", "slow", "flood")


def seconds(fault: Fault) -> float:
    """A time-out that a slow machine stays below, unless the fault is meant to exceed it."""
    return 2 if fault in NEEDS_TIME_OUT else 20


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_was_certainly_not_sent_may_be_tried_again_and_all_else_is_unknown(
    kind: Kind, front: Front, fault: Fault
) -> None:
    transport = kind.transport(front.url, timeout=seconds(fault))
    message = Outgoing(kind.person, Text("Hi"), "v1:abc:1")
    await front.meet(fault)
    answer = await transport.send(message)
    assert answer.verdict == ("retry" if fault == "refused" else "unknown")
    assert answer.external_id is None
    assert answer.reason
    assert len(kind.seen()) == TAKEN.get(fault, 1)  # the messenger saw it once at most: nothing tries by itself
    await front.heal()
    assert (await transport.send(message)).verdict == "sent"
    assert len(kind.seen()) == TAKEN.get(fault, 1) + 1
    await transport.close()
    await front.quiet()


@pytest.mark.parametrize("fault", FAULTS)
async def test_typing_never_raises(kind: Kind, front: Front, fault: Fault) -> None:
    transport = kind.transport(front.url, timeout=seconds(fault))
    inbound = transport.read((await kind.write("Hello")).raw).inbound[0]
    await front.meet(fault)
    await transport.typing(inbound.external_id)
    await transport.typing("\0 no id \ud800")
    await transport.close()


async def test_typing_is_shown(kind: Kind, front: Front) -> None:
    transport = kind.transport(front.url)
    inbound = transport.read((await kind.write("Hello")).raw).inbound[0]
    await transport.typing(inbound.external_id)
    assert front.requests == (1 if transport.capabilities.typing else 0)
    await transport.close()
