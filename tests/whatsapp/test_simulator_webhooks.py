"""Updates of the simulator: statuses, signatures, batches, duplicates, disorder, outages and floods."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from oncue.errors import ConfigError
from oncue.whatsapp.reading import read
from oncue.whatsapp.simulator import Config, Delays, Person, Webhooks, create
from tests.whatsapp.simulated import ANA, BILAL, VERIFY, stage


async def test_statuses_follow_their_delays_on_a_moved_clock() -> None:
    async with stage(delays=Delays(2, 5, 0, 0, (0, 0))) as s:
        await s.text(echo="v1:m:1")
        await s.advance(1.9)
        assert s.application.statuses == []
        await s.advance(0.1)
        assert [name for name, _ in s.application.statuses] == ["sent"]
        await s.advance(60)
        assert [name for name, _ in s.application.statuses] == ["sent", "delivered"]
        (status,) = s.application.values[1]["statuses"]
        began = s.simulator.ledger.of("accepted")[0]["at_us"]
        assert int(status["timestamp"]) == began // 1_000_000 + 5, "though the clock jumped"
        assert status["biz_opaque_callback_data"] == "v1:m:1"
        assert status["recipient_id"] == ANA
        s.simulator.read(ANA)
        await s.rest()
        assert [name for name, _ in s.application.statuses] == ["sent", "delivered", "read"]


async def test_who_gives_no_receipts_is_never_told_to_have_read() -> None:
    async with stage(people=[Person(ANA, receipts=False)]) as s:
        await s.text()
        await s.advance(1)
        s.simulator.read(ANA)
        await s.rest()
        assert [name for name, _ in s.application.statuses] == ["sent", "delivered"]
        assert len(s.simulator.ledger.of("read")) == 1


async def test_the_signature_is_over_escaped_bytes() -> None:
    async with stage() as s:
        s.simulator.say(ANA, "Grüße 🎉")
        await s.rest()
        (raw,) = s.application.raw
        assert raw.isascii()
        assert b"Gr\\u00fc\\u00dfe" in raw
        assert s.application.messages[0]["text"]["body"] == "Grüße 🎉"


async def test_a_blocked_message_stays_at_one_tick_and_nobody_can_write() -> None:
    async with stage() as s:
        assert (await s.client.post("/_sim/block", json={"person": ANA})).status_code == 200
        await s.text()
        await s.advance(60)
        assert [name for name, _ in s.application.statuses] == ["sent"]
        assert not s.simulator.ledger.of("delivered")
        with pytest.raises(ConfigError, match="blocked"):
            s.simulator.say(ANA, "hello")
        s.simulator.block(ANA, False)
        s.simulator.say(ANA, "hello")


async def test_a_message_to_nobody_fails_later() -> None:
    async with stage(strangers="unreachable", templates=[]) as s:
        reply = await s.client.post("/_sim/templates", json={"name": "hello"})
        assert reply.status_code == 200
        template = {"type": "template", "template": {"name": "hello", "language": {"code": "en"}}}
        assert (await s.post({"to": "4917000000000"} | template)).status_code == 200
        await s.advance(10)
        failed = s.application.values[-1]["statuses"][0]
        assert (failed["status"], failed["errors"][0]["code"]) == ("failed", 131026)


async def test_the_echo_on_failed_can_be_switched_off() -> None:
    for echo in (True, False):
        async with stage(webhooks=Webhooks(echo_on_failed=echo)) as s:
            await s.client.post("/_sim/faults", json={"action": "fail", "code": 131049})
            await s.text(echo="v1:m:1")
            await s.advance(10)
            sent, failed = (value["statuses"][0] for value in s.application.values)
            assert sent["biz_opaque_callback_data"] == "v1:m:1"
            assert failed["errors"][0]["code"] == 131049
            assert ("biz_opaque_callback_data" in failed) is echo


async def test_a_late_failed_comes_after_delivered() -> None:
    async with stage(webhooks=Webhooks(late_failed=1)) as s:
        await s.text()
        await s.advance(60)
        assert [name for name, _ in s.application.statuses] == ["sent", "delivered", "failed"]


async def test_delivered_may_be_skipped_and_contacts_absent() -> None:
    people = [Person(ANA, "Ana", answers=[])]
    async with stage(people=people, webhooks=Webhooks(delivered_skipped=1, contacts_absent=1)) as s:
        await s.text("Well.")
        await s.advance(60)
        assert [name for name, _ in s.application.statuses] == ["sent", "read"]
        assert all("contacts" not in value for value in s.application.values)
        assert [line["event"] for line in s.simulator.ledger.of("delivered", "read")] == ["delivered", "read"]


async def test_a_status_may_come_before_the_response() -> None:
    async with stage(webhooks=Webhooks(status_first=1), delays=Delays(1, 1, 1, 0, (5, 5))) as s:
        response = asyncio.create_task(s.text())
        await s.rest()
        assert not response.done()
        assert [name for name, _ in s.application.statuses] == ["sent"]
        await s.advance(5)
        assert (await response).status_code == 200


async def test_lost_statuses_never_come_though_the_person_has_the_message() -> None:
    async with stage(webhooks=Webhooks(statuses_lost=1)) as s:
        await s.text()
        await s.advance(60)
        assert s.application.statuses == []
        assert len(s.simulator.ledger.of("delivered", person=ANA)) == 1


async def test_updates_are_doubled_and_come_in_another_order() -> None:
    async with stage(webhooks=Webhooks(duplicated=1, reordered=0.5, held=3)) as s:
        said = [s.simulator.say(ANA, f"message {i}") for i in range(10)]
        await s.advance(600)
        came = [item["id"] for item in s.application.messages]
        assert sorted(came) == sorted(said * 2)
        assert list(dict.fromkeys(came)) != said


async def test_a_forged_copy_with_a_wrong_signature_comes_along() -> None:
    async with stage(webhooks=Webhooks(bad_signature=1)) as s:
        s.simulator.say(ANA, "hello")
        await s.advance(60)
        assert len(s.application.raw) == len(s.application.refused) == 1
        assert b"forged" in s.application.refused[0]
        assert [line["status"] for line in s.simulator.ledger.of("webhook") if line.get("forged")][-1] == 401


async def test_batches_use_all_three_levels_and_lose_nothing() -> None:
    async with stage(webhooks=Webhooks(batch_within=1)) as s:
        for i in range(30):
            s.simulator.say((ANA, BILAL)[i % 2], f"message {i}")
        await s.text()
        await s.advance(1)
        (raw,) = s.application.raw
        entries = json.loads(raw)["entry"]
        changes = [change for entry in entries for change in entry["changes"]]
        assert len(entries) > 1
        assert any(len(entry["changes"]) > 1 for entry in entries)
        assert any(len(change["value"].get("messages", [])) > 1 for change in changes)
        batch = read(raw)
        assert [each.text for each in batch.inbound] == [f"message {i}" for i in range(30)]
        assert batch.unread == []
        assert [each.status for each in batch.statuses] == ["sent", "delivered"]


async def test_what_is_not_taken_comes_again_ever_more_seldom_and_is_given_up_at_last() -> None:
    chaos = Webhooks(retry_first=1, retry_most=100, give_up_after=500)
    async with stage(webhooks=chaos) as s:
        s.application.status = 503
        s.simulator.say(ANA, "hello")
        await s.rest()
        tries = []
        for second in range(1, 800):
            before = s.application.tries
            await s.advance(1)
            if s.application.tries > before:
                tries.append(second)
        assert tries == [1, 3, 7, 15, 31, 63, 127, 227, 327, 427, 527]
        assert len(s.simulator.ledger.of("webhook-given-up")) == 1


async def test_an_outage_holds_updates_back_and_its_end_is_a_flood() -> None:
    async with stage() as s:
        reply = await s.client.post("/_sim/outage", json={"seconds": 600})
        assert reply.status_code == 200
        said = [s.simulator.say(ANA, f"message {i}") for i in range(10)]
        await s.advance(599)
        assert s.application.messages == []
        assert (await s.client.get("/_sim/webhook")).json()["waiting"] == 10
        await s.advance(1)
        came = [item["id"] for item in s.application.messages]
        assert sorted(came) == sorted(said)
        assert came != said, "jumbled"
        old = int(s.application.messages[0]["timestamp"])
        assert old == s.clock.now() // 1_000_000 - 600


async def test_without_a_flood_updates_come_at_their_next_try() -> None:
    async with stage() as s:
        s.simulator.outage(10, flood=False)
        s.simulator.say(ANA, "hello")
        await s.rest()
        for _ in range(14):
            await s.advance(1)
        assert s.application.messages == []
        await s.advance(1)
        assert len(s.application.messages) == 1


async def test_a_flood_of_old_messages() -> None:
    async with stage() as s:
        reply = await s.client.post("/_sim/flood", json={"count": 50, "age": 7_200})
        assert reply.status_code == 200
        await s.rest()
        ages = {s.clock.now() // 1_000_000 - int(item["timestamp"]) for item in s.application.messages}
        assert (len(s.application.messages), ages) == (50, {7_200})


async def test_who_subscribes_late_gets_what_waited() -> None:
    async with stage(subscribed=False) as s:
        s.simulator.say(ANA, "hello")
        s.simulator.say(BILAL, "hello")
        await s.rest()
        await s.simulator.webhooks.subscribe("http://application/hook", VERIFY, s.application.program)
        await s.rest()
        assert len(s.application.messages) == 2


async def test_the_handshake_must_be_answered_and_the_address_be_here() -> None:
    async with stage() as s:
        webhooks = s.simulator.webhooks
        with pytest.raises(ConfigError, match=r"403.*hub.challenge"):
            await webhooks.subscribe("http://application/hook", "another", s.application.program)
        with pytest.raises(ConfigError, match="can't be reached"):
            await webhooks.subscribe("http://127.0.0.1:9/hook", VERIFY)
        for url in ("http://example.com/hook", "http://10.0.0.1/hook", "ftp://127.0.0.1/", "nothing"):
            with pytest.raises(ConfigError, match="this machine only"):
                await webhooks.subscribe(url, VERIFY)


async def life(seed: int, path: Path) -> list[str]:
    people = [Person(f"49157000{i:05d}", answers=["Yes"], pace=(1, 5)) for i in range(20)]
    async with stage(people=people, seed=seed, delays=Delays(), webhooks=Webhooks.rough(), ledger=path) as s:
        for person in people:
            # The response waits on the moved clock.
            await s.simulator.begin(s.simulator.accept(
                {"to": person.key, "type": "text", "text": {"body": "How are you?"}})[1])  # fmt: skip
        for _ in range(100):
            await s.advance(0.5)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]  # noqa: ASYNC240 - small
    return [json.dumps({key: value for key, value in line.items() if key != "n"}) for line in lines]


async def test_the_same_seed_is_the_same_life(tmp_path: Path) -> None:
    first, second = await life(7, tmp_path / "a"), await life(7, tmp_path / "b")
    other = await life(8, tmp_path / "c")
    truth = ('"said"', '"delivered"', '"read"', '"accepted"')
    assert [x for x in first if any(t in x for t in truth)] == [x for x in second if any(t in x for t in truth)]
    assert first != other
    assert len([x for x in first if '"said"' in x]) == 20


async def test_the_clock_of_a_server_of_its_own_is_moved_by_the_control_plane() -> None:
    app = create(Config(people=[Person(ANA)]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://simulator") as client:
        before = (await client.get("/_sim/clock")).json()["now_us"]
        after = (await client.post("/_sim/clock", json={"advance": 86_400})).json()["now_us"]
        assert after - before >= 86_400 * 1_000_000
        assert (await client.post("/_sim/clock", json={"advance": -1})).status_code == 400
    await app.simulator.close()
