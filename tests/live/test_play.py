"""The server over a real host with a tiny model: a page plays, and the model's notes come through the socket."""

import asyncio

import pytest

from sage_jax.live.host import LiveHost
from tests.live.clients import world_of
from tests.live.small import model_of


@pytest.mark.parametrize("mode", ["answer", "trade", "accompany"])
def test_a_page_plays_with_the_model(tmp_path, mode):
    async def run(host):
        async with world_of(tmp_path, host, 1) as all_:
            page, welcome = await all_.join(mode=mode, qpm=240, pause=0.25, trade_bars=1, lead=1)
            assert welcome["position"]["meter"] == [4, 4] and welcome["settings"]["temperature"] is None
            for pitch in (60, 62, 64, 65):
                await page.send(type="on", pitch=pitch, velocity=90)
                await asyncio.sleep(0.1)
                await page.send(type="off", pitch=pitch)
            events = []
            while not events:
                events += (await page.next("notes"))["notes"]
            await page.send(type="panic")
            await page.next("silence")
            while len({event["id"] for event in events}) * 2 > len(events):  # each note-on has its note-off
                events += (await page.next("notes"))["notes"]
            assert (await page.next("statistics"))["player_notes"] == 4
            async with page.session.get(f"recordings/{welcome['key']}.mid") as answer:
                assert answer.status == 200
            await page.socket.close()
            await all_.until(lambda: not host.sessions)
            await all_.join()

    with LiveHost(model_of(), 1) as host:
        asyncio.run(run(host))
