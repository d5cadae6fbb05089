"""The server with a stand-in for the model: several players, settings, recordings."""

import asyncio
import socket as sockets

import pytest

from sage_jax.errors import UserError
from sage_jax.live import player
from sage_jax.live.server import LiveServer
from sage_jax.music.midi import read_midi
from tests.live.clients import world
from tests.live.stand_in import ABOUT, StandInHost


def test_two_players_at_once_get_their_own_notes_ahead_of_time(tmp_path):
    async def run():
        async with world(tmp_path) as all_:
            (one, welcome), (two, _) = await all_.join(qpm=240), await all_.join(qpm=240.0, meter=[3, 4])
            assert welcome["model"] == "stand-in" and welcome["settings"]["qpm"] == 240 and len(welcome["instruments"]) == 129
            await one.send(type="ping", sent=1.5)
            pong = await one.next("pong")
            assert pong["sent"] == 1.5 and abs(pong["now"] - all_.host.now()) < 1
            await one.send(type="on", pitch=60, velocity=90, at=pong["now"])
            await two.send(type="on", pitch=40, velocity=50, at=None)
            await one.send(type="off", pitch=60)
            first, other = await one.next("notes"), await two.next("notes")
            now = all_.host.now()
            assert [note["pitch"] for note in first["notes"] if note["velocity"]] == [67]
            assert [note["pitch"] for note in other["notes"]] == [47]
            assert first["notes"][0]["due"] == pytest.approx(pong["now"] + 0.25, abs=1e-4)
            assert 0 < first["notes"][0]["due"] - now < player.HORIZON
            plan = await two.next("plan")
            assert plan["notes"][-1]["pitch"] == 52
            report = await one.next("statistics")
            assert report["player_notes"] == 1 and report["position"]["qpm"] == 240
            assert all_.host.opened[0].calls[0] == ("change", {"qpm": 240.0})
            assert all_.host.opened[1].calls[0] == ("change", {"qpm": 240.0, "meter": (3, 4)})

    asyncio.run(run())


def test_commands_settings_and_times(tmp_path):
    async def run():
        async with world(tmp_path) as all_:
            page, _ = await all_.join()
            for name in ("take_over", "panic"):
                await page.send(type=name)
            await page.next("silence")
            await page.send(type="settings", settings={"qpm": 90, "instruments": [0, 128], "temperature": None})
            changed = await page.next("settings")
            assert changed["settings"]["qpm"] == 90 and changed["settings"]["instruments"] == [0, 128]
            now = all_.host.now()
            await page.send(type="on", pitch=60, velocity=90, at=now - 100)
            await page.send(type="off", pitch=60, at=now + 100)
            await page.send(type="settings", settings={"qpm": 5000})
            assert (await page.next("problem"))["text"].startswith("live.qpm is 5000")
            calls = all_.host.opened[0].calls
            assert [call[0] for call in calls] == ["change", "take_over", "panic", "change", "on", "off", "change"]
            assert calls[4][4] > now - player.MAX_AGE - 0.1 and calls[5][3] <= all_.host.now()
            # Settings of a hello that are wrong do not keep a player out.
            other, welcome = await all_.join(qpm=2)
            assert welcome["settings"]["qpm"] == 120 and "live.qpm" in (await other.next("problem"))["text"]

    asyncio.run(run())


def test_addresses_that_cannot_be_used_are_one_line(tmp_path):
    with sockets.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="in use; choose another with --port"):
        LiveServer(StandInHost(), ABOUT, port=taken.getsockname()[1])
    with pytest.raises(UserError, match="--host=192.0.2.1"):
        LiveServer(StandInHost(), ABOUT, address="192.0.2.1", port=0)
    with pytest.raises(UserError, match="is no port"):
        LiveServer(StandInHost(), ABOUT, port=70_000)


def test_recordings(tmp_path):
    async def run():
        async with world(tmp_path, sessions=1) as all_:
            page, welcome = await all_.join(qpm=1000)

            async def download(kind: str):
                async with page.session.get(f"recordings/{welcome['key']}.{kind}") as answer:
                    return answer.status, await answer.read()

            status, text = await download("mid")
            assert status == 409 and b"nothing was played" in text
            for pitch in (60, 62):
                if pitch == 62:
                    await asyncio.sleep(0.3)  # a bar is 0.24 seconds
                    await page.send(type="record")
                    await page.next("recording")
                await page.send(type="on", pitch=pitch, velocity=90)
                await asyncio.sleep(0.05)
                await page.send(type="off", pitch=pitch)
            await page.send(type="stop")
            assert not (await page.next("recording"))["is_on"]
            status, data = await download("mid")
            path = tmp_path / "live.mid"
            path.write_bytes(data)
            assert status == 200 and read_midi(path).notes["pitch"].tolist() == [62]
            status, data = await download("wav")
            assert status == 200 and data[:4] == b"RIFF"
            # After the page has gone it can still be saved, by who knows the key.
            await page.socket.close()
            await all_.until(lambda: all_.host.closed == 1)
            assert (await download("mid"))[0] == 200
            async with page.session.get("recordings/x.mid") as answer:
                assert answer.status == 409

    asyncio.run(run())
