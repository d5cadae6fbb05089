"""Pages without a browser, and the server that they talk to."""

import asyncio
import contextlib
import json

import aiohttp

from sage_jax.live.server import LiveServer
from sage_jax.live.sounds import SoundStore
from tests.live.stand_in import ABOUT, StandInHost


class Page:
    """A page without a browser: one socket, and what came through it."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse):
        self.session, self.socket = session, socket

    async def send(self, **fields) -> None:
        await self.socket.send_str(json.dumps(fields))

    async def next(self, *kinds: str) -> dict:
        """The next message of one of the kinds; others are skipped."""
        async with asyncio.timeout(8):
            while True:
                message = await self.socket.receive()
                assert message.type == aiohttp.WSMsgType.TEXT, f"{message.type} {message.extra}"
                found = json.loads(message.data)
                if found["type"] in kinds:
                    return found

    async def ended(self) -> list[dict]:
        """All messages until the server closes the socket."""
        found = []
        async with asyncio.timeout(5):
            async for message in self.socket:
                found.append(json.loads(message.data))
        return found


class World:
    """A server for `sessions` players, and its clients."""

    def __init__(self, stack: contextlib.AsyncExitStack, serving: LiveServer, host: StandInHost):
        self.stack, self.serving, self.host = stack, serving, host

    async def client(self, **headers: str) -> aiohttp.ClientSession:
        return await self.stack.enter_async_context(aiohttp.ClientSession(self.serving.url, headers=headers))

    async def connect(self, **headers: str) -> Page:
        session = await self.client(**headers)
        return Page(session, await session.ws_connect("socket"))

    async def join(self, key: str = "", **settings) -> tuple[Page, dict]:
        page = await self.connect()
        await page.send(type="hello", key=key, settings=settings)
        return page, await page.next("welcome")

    async def until(self, condition) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)


def world(tmp_path, sessions: int = 2, **options):
    """A World with a stand-in for the model."""
    return world_of(tmp_path, StandInHost(sessions), sessions, **options)


@contextlib.asynccontextmanager
async def world_of(tmp_path, host, sessions: int, **options):
    """A World whose server has the host."""
    serving = LiveServer(host, ABOUT, sessions=sessions, port=0, sounds=SoundStore(tmp_path / "sounds"), **options)
    async with contextlib.AsyncExitStack() as stack:
        await serving.start()
        stack.push_async_callback(serving.close)
        yield World(stack, serving, host)
