"""The web server of live play: the page, one WebSocket for each player, the sounds and the recordings."""

import asyncio
import concurrent.futures
import errno
import importlib.resources
import pathlib
import socket as sockets
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from sage_jax.api import Model
from sage_jax.errors import UserError
from sage_jax.live.access import Access
from sage_jax.live.host import LiveHost
from sage_jax.live.messages import MAX_BYTES
from sage_jax.live.player import HORIZON, Player
from sage_jax.live.sounds import SoundStore
from sage_jax.music.instruments import instrument_names
from sage_jax.music.midi import save_midi
from sage_jax.music.notes import Piece
from sage_jax.rendering.audio import render_wav

HEARTBEAT = 10.0  # seconds between pings of the WebSocket; a page that does not answer in half of it is gone
WAITING = 16  # connections besides the players
KEPT = 16  # recordings of players who left
SEND_BUFFER = 1 << 16  # bytes that the system may hold for a page that does not read
CLOSING = 2.0  # seconds for the pages to go when the server ends
FULL = "the {} places are taken; wait until a player leaves, or start launch.live with more --sessions"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
IMMUTABLE = "public, max-age=31536000, immutable"


def about_model(model: Model) -> dict[str, Any]:
    """What pages are to know of a model: its name, time signatures, grid and sampling."""
    grid = model.tokenizer.grid
    return {
        "model": model.run.model.name,
        "meters": [list(meter) for meter in grid.meters],
        "ticks_per_quarter": grid.ticks_per_quarter,
        "sampling": {name: getattr(model.sampling, name) for name in ("temperature", "top_p", "min_p")},
    }


def listen(address: str, port: int) -> sockets.socket:
    """A socket that listens; port 0 is a free one. Raises UserError for a taken port or another machine's address."""
    if not 0 <= port < 1 << 16:
        raise UserError(f"--port={port} is no port; choose one from 1024 to 65535, or 0 for a free one")
    try:
        family = sockets.AF_INET6 if ":" in address else sockets.AF_INET
        return sockets.create_server((address.strip("[]"), port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} is in use; choose another with --port, or --port=0 for a free one") from error
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} is not for ordinary users; choose one above 1023 with --port") from error
        raise UserError(f"--host={address} can't be used ({error.strerror or error}); choose 127.0.0.1") from error


class LiveServer:
    """Serves `sessions` players of `host`, a LiveHost, on `address` and `port`; port 0 takes a free one.

    about: what pages are to know of the model, as `about_model` returns it. token: as in Access. sounds: the store of samples.
    listening: what `listen` has returned for the address already. Raises UserError as `listen`.
    """

    def __init__(
        self,
        host: LiveHost,
        about: Mapping[str, Any],
        *,
        sessions: int = 1,
        address: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        sounds: SoundStore | None = None,
        listening: sockets.socket | None = None,
    ):
        self.host, self.sessions, self.address = host, sessions, address.strip("[]")
        self.access = Access(self.address, token)
        self._listening = listen(self.address, port) if listening is None else listening
        self.port = self._listening.getsockname()[1]
        self.sounds = SoundStore() if sounds is None else sounds
        self._welcome = {
            **about,
            "horizon": HORIZON,
            "instruments": instrument_names(),
            "sounds": self.sounds.version,
        }
        folder = importlib.resources.files("sage_jax.live") / "page"
        self._files = {file.name: file.read_bytes() for file in folder.iterdir() if pathlib.Path(file.name).suffix in TYPES}
        self._players: dict[str, Player] = {}
        self._left: OrderedDict[str, Piece] = OrderedDict()
        self._connections = 0
        self._farewells: set[asyncio.Task] = set()
        self._threads = concurrent.futures.ThreadPoolExecutor(1, "recordings")
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The address of the page, with the token where there is one."""
        if self.address in ("0.0.0.0", "::"):
            host = sockets.gethostname()
        else:
            host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}{self.access.prefix}"

    def application(self) -> web.Application:
        """The aiohttp application, without a port of its own."""
        application = web.Application(client_max_size=MAX_BYTES)
        application.router.add_get("/{path:.*}", self._answer)
        return application

    async def start(self) -> None:
        """Answers from now on; requests since the server was made have waited."""
        self._runner = web.AppRunner(self.application(), access_log=None, keepalive_timeout=30, shutdown_timeout=CLOSING)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listening).start()

    async def close(self) -> None:
        """Ends all sessions, with their notes off, and stops listening."""
        text = "the server has stopped; start it again and reload the page"
        await asyncio.gather(*(player.refuse(text) for player in self._players.values()))
        if self._runner is not None:
            await self._runner.cleanup()
        self._listening.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.sounds.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if refused := self.access.refusal(request.headers.get("Host"), origin):
            return web.Response(status=403, text=f"{refused}\n")
        path = self.access.inner_path(request.path)
        if path is None:
            text = "the address has no token or a wrong one; use the one that launch.live printed\n"
            return web.Response(status=403, text=text)
        match path.split("/"):
            case [""]:
                return self._file(request, "index.html")
            case [name] if name in self._files:
                return self._file(request, name)
            case ["socket"]:
                return await self._connect(request)
            case ["sounds", version, name] if version and version == self.sounds.version:
                return await self._sound(name)
            case ["recordings", name]:
                return await self._recording(request, name)
        return web.Response(status=404, text="there is no such page\n")

    def _file(self, request: web.Request, name: str) -> web.Response:
        host = request.headers["Host"]
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; worker-src 'self'; "
            f"connect-src 'self' ws://{host} wss://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "Cache-Control": "no-cache",
            "Permissions-Policy": "midi=(self), microphone=(), camera=(), geolocation=()",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        kind = TYPES[pathlib.Path(name).suffix]
        return web.Response(body=self._files[name], headers=headers, content_type=kind, charset="utf-8")

    async def _sound(self, name: str) -> web.Response:
        """Samples of a program: PROGRAM.json says where each pitch is in PROGRAM.wav."""
        program, _, suffix = name.partition(".")
        if not program.isdecimal() or len(program) > 3 or int(program) > 128 or suffix not in ("json", "wav"):
            return web.Response(status=404, text="sounds are PROGRAM.json and PROGRAM.wav, with programs from 0 to 128\n")
        try:
            data = await self.sounds.read(int(program), suffix)
        except UserError as error:
            return web.Response(status=503, text=f"{error}\n")
        kind = "application/json" if suffix == "json" else "audio/wav"
        return web.Response(body=data, headers={"Cache-Control": IMMUTABLE}, content_type=kind)

    async def _recording(self, request: web.Request, name: str) -> web.StreamResponse:
        key, _, suffix = name.partition(".")
        player = self._players.get(key)
        try:
            if suffix not in ("mid", "wav") or (player is None and key not in self._left):
                raise UserError("there is no such recording; play, and save again")
            piece = self._left[key] if player is None else player.recording()
            if not len(piece.notes):
                raise UserError("nothing was played yet; play, and save again")
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / f"live.{suffix}"
                write = save_midi if suffix == "mid" else render_wav
                await asyncio.get_running_loop().run_in_executor(self._threads, write, piece, path)
                file = path.open("rb")  # stays readable without its folder
        except UserError as error:
            return web.Response(status=409, text=f"{error}\n")
        with file:
            response = web.StreamResponse(headers={"Cache-Control": "no-store"})
            response.content_type = "audio/midi" if suffix == "mid" else "audio/wav"
            response.content_length = file.seek(0, 2)
            file.seek(0)
            await response.prepare(request)
            while chunk := file.read(1 << 16):
                await response.write(chunk)
        return response

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        if self._connections >= self.sessions + WAITING:
            return web.Response(status=503, text="too many connections; try again later\n")
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT, max_msg_size=MAX_BYTES, compress=False)
        if not socket.can_prepare(request).ok:
            return web.Response(status=400, text="this address is for the page's socket\n")
        transport = request.transport
        self._connections += 1
        try:
            await socket.prepare(request)
            if transport is not None:
                transport.get_extra_info("socket").setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SEND_BUFFER)
            await self._serve(Player(socket, self.host, transport.abort if transport else lambda: None))
        finally:
            self._connections -= 1
        return socket

    async def _serve(self, player: Player) -> None:
        hello = await player.hello()
        if hello is None:
            return
        if earlier := self._players.get(hello.key):  # the same page was reloaded, and its old socket has not ended yet
            self._release(earlier)
            task = asyncio.create_task(earlier.refuse("this session went on in another tab or after a reload"))
            self._farewells.add(task)
            task.add_done_callback(self._farewells.discard)
        if len(self._players) >= self.sessions:
            return await player.refuse(FULL.format(self.sessions))
        self._players[player.key] = player
        try:
            problem = await player.open(dict(hello.settings))
            await player.play(self._welcome, problem)
        except UserError as error:
            await player.refuse(str(error))
        finally:
            self._release(player)
            await player.refuse("the connection has ended; reload the page")

    def _release(self, player: Player) -> None:
        """Frees the player's row; what was played can be saved for a while."""
        if self._players.pop(player.key, None) is None or not player.is_open:
            return
        try:
            self._left[player.key] = player.recording()
            while len(self._left) > KEPT:
                self._left.popitem(last=False)
        finally:
            player.session.close()
