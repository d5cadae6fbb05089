"""Pages that misbehave cost nobody else anything."""

import asyncio
import contextlib
import socket as sockets

from sage_jax.live import player, server
from tests.live.clients import Page, world


def test_a_page_that_goes_on_with_rubbish_or_floods_or_sends_too_much_is_closed_alone(tmp_path):
    async def run():
        async with world(tmp_path) as all_:
            good, _ = await all_.join()

            bad, _ = await all_.join()
            for _ in range(player.MAX_WRONG + 1):
                await bad.socket.send_bytes(b"\x00")
            assert "too many messages with errors" in (await bad.ended())[-1]["text"]

            flood, _ = await all_.join()
            with contextlib.suppress(ConnectionError):
                for _ in range(2 * int(player.BURST)):
                    await flood.send(type="off", pitch=1)
            assert "messages a second" in (await flood.ended())[-1]["text"]

            large, _ = await all_.join()
            await large.socket.send_str(" " * 100_000)
            await large.ended()
            assert large.socket.close_code == 1009

            rude = await all_.connect()
            await rude.send(type="on", pitch=60, velocity=1)
            assert "must be a hello" in (await rude.ended())[-1]["text"]

            await all_.until(lambda: all_.host.closed == 3)
            await good.send(type="on", pitch=60, velocity=90)
            assert (await good.next("notes"))["notes"][0]["pitch"] == 67

    asyncio.run(run())


def test_a_page_that_does_not_read_loses_its_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(player, "OUTBOX", 32)
    monkeypatch.setattr(player, "RATE", 1e9)
    monkeypatch.setattr(player, "BURST", 1e9)

    async def run():
        async with world(tmp_path) as all_:
            good, _ = await all_.join()
            stuck, _ = await all_.join()
            transport = stuck.socket._response.connection.transport
            transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            transport.pause_reading()
            with contextlib.suppress(ConnectionError):
                for number in range(100_000):
                    await stuck.send(type="ping", sent=number)
                    if all_.host.closed:
                        break
            await all_.until(lambda: all_.host.closed == 1)
            await good.send(type="ping", sent=0)
            await good.next("pong")

    asyncio.run(run())


def test_a_page_that_vanishes_frees_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "HEARTBEAT", 0.2)

    async def run():
        async with world(tmp_path, sessions=1) as all_:
            session = await all_.client()
            gone = Page(session, await session.ws_connect("socket", autoping=False))  # does not answer pings, as a cut cable
            await gone.send(type="hello")
            reader = asyncio.create_task(gone.ended())
            await all_.until(lambda: all_.host.closed == 1)
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await all_.join()

    asyncio.run(run())


def test_a_full_house_and_a_reload(tmp_path):
    async def run():
        async with world(tmp_path, sessions=1) as all_:
            first, welcome = await all_.join()
            late = await all_.connect()
            await late.send(type="hello", key="unknown")
            (refusal,) = await late.ended()
            assert refusal["final"] and "places are taken" in refusal["text"]
            # The page is reloaded before its old socket has ended.
            again, other = await all_.join(key=welcome["key"])
            assert other["key"] != welcome["key"] and "after a reload" in (await first.ended())[-1]["text"]
            await again.send(type="on", pitch=60, velocity=90)
            await again.next("notes")
            await again.socket.close()
            await all_.until(lambda: all_.host.closed == 2)
            await all_.join()

    asyncio.run(run())


def test_a_session_that_fails_is_closed(tmp_path):
    async def run():
        async with world(tmp_path, sessions=1) as all_:
            page, _ = await all_.join()
            all_.host.opened[0].poll = None
            await page.send(type="on", pitch=60, velocity=90)
            assert "the connection has ended" in (await page.ended())[-1]["text"]
            await all_.join()

    asyncio.run(run())


def test_rubbish_is_answered_in_one_line(tmp_path):
    async def run():
        async with world(tmp_path) as all_:
            page, _ = await all_.join()
            for text in ("{", '{"type": "on"}', '{"type": "hello"}', '{"type": "settings", "settings": {"qpm": 1}}'):
                await page.socket.send_str(text)
                assert "\n" not in (await page.next("problem"))["text"]
            await page.send(type="ping", sent=0)
            await page.next("pong")

    asyncio.run(run())
