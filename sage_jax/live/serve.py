"""Live play with a page, from the address to the last note-off."""

import asyncio
import contextlib
import os
import signal
import sys
import webbrowser
from collections.abc import Callable
from typing import TYPE_CHECKING

from sage_jax.errors import UserError

if TYPE_CHECKING:
    from sage_jax.live.host import LiveHost
    from sage_jax.live.server import LiveServer

DEFAULT_PORT = 8765
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    make_host: Callable[[], "LiveHost"],
    *,
    sessions: int = 1,
    name: str = "",
    address: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serves the page until Ctrl-C or SIGTERM; all notes end then.

    make_host: loads the model and returns a LiveHost that is not started yet, once the address is known to be free.
    sessions: players at once, as many as the host has. name: what the page calls the model. open_browser: shows the page when
    it can be played. say: gets one line with the address once all is compiled. Raises UserError for an address or port that
    can't be used, and without the extra live.
    """
    try:
        from sage_jax.live.server import LiveServer, about_model, listen
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise UserError("the page needs aiohttp; run pip install -e '.[live,audio]'") from error
    with listen(address, port) as listening:
        host = make_host()
        try:
            host.start()
            about = about_model(host.model)
            about["model"] = name or about["model"]
            server = LiveServer(host, about, sessions=sessions, address=address, listening=listening)
            asyncio.run(_until_stopped(server, open_browser, say))
        finally:
            host.close()


async def _until_stopped(server: "LiveServer", open_browser: bool, say: Callable[[str], None]) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, stopped.set)
    await server.start()
    piano = asyncio.create_task(_first_sounds(server))
    try:
        say(f"Play at {server.url} (Ctrl-C ends it)")
        if open_browser and _has_screen():
            await asyncio.to_thread(webbrowser.open, server.url)
        await stopped.wait()
    finally:
        piano.cancel()
        await server.close()


def _has_screen() -> bool:
    """Whether a browser can open a window; one of the terminal could not play."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


async def _first_sounds(server: "LiveServer") -> None:
    """Makes the samples of the piano before the first page wants them."""
    if server.sounds.version:
        with contextlib.suppress(UserError):
            await server.sounds.read(0, "json")
