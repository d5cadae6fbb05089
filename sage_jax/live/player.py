"""One connected page: the notes that it plays go to its session, and those of the model come back ahead of time."""

import asyncio
import contextlib
import dataclasses
import json
import secrets
from collections.abc import Callable
from typing import Any

from aiohttp import WSMsgType, web

from sage_jax.errors import UserError
from sage_jax.live.host import LiveHost
from sage_jax.live.messages import Change, ClientMessage, Command, Hello, Key, Ping, parse
from sage_jax.live.queue import Message
from sage_jax.live.rate import Bucket
from sage_jax.live.session import LiveSession
from sage_jax.music.notes import Piece

HORIZON = 0.2  # seconds before its due time that a note is sent, and is final
PLAN = 8.0  # seconds of the plan that a page draws
PLAN_INTERVAL = 0.15  # seconds between two plans
PLAN_NOTES = 256  # of one plan at most
HELLO_TIMEOUT = 10.0
REPORT_INTERVAL = 1.0  # seconds between two statistics
RATE, BURST = 150.0, 300.0  # messages a second
MAX_WRONG = 20  # messages that may be wrong before the connection ends
OPEN_TRIES = 20
OUTBOX = 256  # messages that may wait for a page that reads slowly
MAX_AGE = 1.0  # seconds that a key may lie in the past


class Player:
    """Plays one session of `host` for one socket, until either ends. abort: drops the connection at once.

    key: names the player's recordings, and the session that a reloaded page replaces. session: once `is_open`.
    """

    session: LiveSession

    def __init__(self, socket: web.WebSocketResponse, host: LiveHost, abort: Callable[[], None]):
        self.socket, self.host, self._abort = socket, host, abort
        self.key = secrets.token_urlsafe(12)
        self.is_open = False
        self._outbox: asyncio.Queue[str] = asyncio.Queue(OUTBOX)
        self._bucket = Bucket(RATE, BURST, host.now())
        self._changed = asyncio.Event()
        self._recorded: tuple[int, int | None] = (0, None)
        self._wrong = 0

    async def hello(self) -> Hello | None:
        """The first message; None if the page sends another one, or none in time, and has been sent the reason."""
        try:
            message = await asyncio.wait_for(self.socket.receive(), HELLO_TIMEOUT)
        except TimeoutError:
            return await self.refuse(f"no hello within {HELLO_TIMEOUT:.0f} seconds; reload the page")
        if message.type != WSMsgType.TEXT:
            return None
        try:
            found = parse(message.data)
        except UserError as error:
            return await self.refuse(str(error))
        return found if isinstance(found, Hello) else await self.refuse("the first message must be a hello; reload the page")

    async def refuse(self, reason: str) -> None:
        """Sends a problem after which nothing comes, and closes the socket."""
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            await asyncio.wait_for(self.socket.send_str(json.dumps({"type": "problem", "text": reason, "final": True})), 2)
            await asyncio.wait_for(self.socket.close(code=1008, message=reason.encode()[:120]), 2)

    async def open(self, settings: dict[str, Any]) -> str | None:
        """Opens the session; the problem with `settings`, whose place the defaults take, or None.

        A row that another player has just left may not be free yet. Raises UserError if none becomes free.
        """
        loop = asyncio.get_running_loop()

        def on_change() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._changed.set)

        for left in reversed(range(OPEN_TRIES)):
            try:
                self.session = await asyncio.to_thread(self.host.open, on_change=on_change)
                self.is_open = True
                break
            except UserError:
                if not left:
                    raise
                await asyncio.sleep(0.1)
        try:
            self.session.change(**settings)
        except UserError as error:
            return str(error)
        return None

    async def play(self, welcome: dict[str, Any], problem: str | None) -> None:
        """Exchanges messages until the page leaves. The caller closes the session."""
        self._send("welcome", key=self.key, now=self.host.now(), **welcome, **self._state())
        if problem:
            self._send("problem", text=problem)
        tasks = [asyncio.create_task(each()) for each in (self._read, self._write, self._deliver, self._report)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, UserError):  # the model has failed
                    await self.refuse(str(error))
                elif error is not None and not isinstance(error, ConnectionError):
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def recording(self) -> Piece:
        """What was played between record and stop; everything where nothing was recorded."""
        first, stop = self._recorded
        piece = self.session.piece()
        return piece.slice_bars(first, max(first, piece.num_bars if stop is None else stop))

    async def _read(self) -> None:
        async for message in self.socket:
            if not self._bucket.take(self.host.now()):
                return await self.refuse(f"more than {RATE:.0f} messages a second; reload the page to go on")
            if message.type != WSMsgType.TEXT:
                problem = "a message is not text; send JSON"
            else:
                problem = self._handle(message.data)
            if problem:
                self._wrong += 1
                if self._wrong > MAX_WRONG:
                    return await self.refuse("too many messages with errors; reload the page")
                self._send("problem", text=problem)

    def _handle(self, text: str) -> str | None:
        """Does what a message wants; the problem with it in one line, or None."""
        try:
            self._do(parse(text))
        except UserError as error:
            return str(error)
        return None

    def _do(self, message: ClientMessage) -> None:
        now = self.host.now()
        match message:
            case Ping(sent):
                self._send("pong", sent=sent, now=now)
            case Key(pitch, velocity, program, at):
                at = None if at is None else min(max(at, now - MAX_AGE), now)
                if velocity:
                    self.session.note_on(pitch, velocity, program=program, at=at)
                else:
                    self.session.note_off(pitch, program=program, at=at)
            case Change(settings):
                self.session.change(**settings)
                self._send("settings", **self._state())
            case Command("take_over"):
                self.session.take_over()
            case Command("panic"):
                self.session.panic()
                self._send("silence")
            case Command("record"):
                self._recorded = (max(self.session.position(now).bar, 0), None)
                self._send("recording", is_on=True)
            case Command("stop"):
                self._recorded = (self._recorded[0], max(self.session.position(now).bar, 0) + 1)
                self._send("recording", is_on=False)
            case Hello():
                raise UserError("a second hello; reload the page to begin again")

    async def _write(self) -> None:
        while True:
            await self.socket.send_str(await self._outbox.get())

    async def _deliver(self) -> None:
        """Sends notes HORIZON before they are due, and now and then the plan after them, for the page to draw."""
        sent_plan, planned_at, turn = None, 0.0, None
        while True:
            self._changed.clear()
            now = self.host.now()
            messages = self.session.poll(now + HORIZON)
            if messages:
                self._send("notes", notes=[_note(message) for message in messages])
            if now >= planned_at + PLAN_INTERVAL:
                planned_at, plan = now, [_note(message) for message in self.session.plan(now + PLAN)[:PLAN_NOTES]]
                if plan != sent_plan:
                    sent_plan = plan
                    self._send("plan", notes=plan)
            if self.session.turn != turn:
                turn = self.session.turn
                self._send("turn", turn=turn)
            due = self.session.next_due()
            wait = PLAN_INTERVAL if due is None else min(max(due - HORIZON - self.host.now(), 0.0), PLAN_INTERVAL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), max(wait, 0.002))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_INTERVAL)
            self._send("statistics", **self.session.statistics().to_dict(), position=self._position())

    def _state(self) -> dict[str, Any]:
        return {"settings": dataclasses.asdict(self.session.settings), "position": self._position()}

    def _position(self) -> dict[str, Any]:
        return dataclasses.asdict(self.session.position(self.host.now()))

    def _send(self, kind: str, **fields: Any) -> None:
        """Queues a message; a page that does not read loses its connection and nobody waits for it."""
        try:
            self._outbox.put_nowait(json.dumps({"type": kind, **fields}))
        except asyncio.QueueFull:
            self._abort()


def _note(message: Message) -> dict[str, Any]:
    """A Message of the session as the page reads it. velocity: 0 for a note-off."""
    return {
        "id": message.note,
        "due": round(message.due, 5),
        "program": message.program,
        "pitch": message.pitch,
        "velocity": message.velocity if message.is_on else 0,
    }
