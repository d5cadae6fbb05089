"""Live play with a page, from the loaded model to the last note-off."""

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import Callable
from typing import Any

from sage_jax.errors import UserError
from sage_jax.live.server import DEFAULT_PORT, LiveServer, about_model

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    host: Any,
    *,
    sessions: int = 1,
    name: str = "",
    address: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    open_browser: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Serves the page for `host`, a LiveHost that is not started yet, until Ctrl-C or SIGTERM; all notes end then.

    sessions: players at once, as many as the host has. name: what the page calls the model. open_browser: shows the page when
    it can be played. say: gets one line with the address once all is compiled. Raises UserError, before anything is compiled,
    for an address or port that can't be used.
    """
    about = about_model(host.model)
    server = LiveServer(host, {**about, "model": name or about["model"]}, sessions=sessions, address=address, port=port)
    try:
        host.start()
        asyncio.run(_until_stopped(server, open_browser, say))
    finally:
        host.close()


async def _until_stopped(server: LiveServer, open_browser: bool, say: Callable[[str], None]) -> None:
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for each in SIGNALS:
        loop.add_signal_handler(each, stopped.set)
    await server.start()
    piano = asyncio.create_task(_first_sounds(server))
    try:
        say(f"Play at {server.url} (Ctrl-C ends it)")
        if open_browser:
            await asyncio.to_thread(webbrowser.open, server.url)
        await stopped.wait()
    finally:
        piano.cancel()
        await server.close()


async def _first_sounds(server: LiveServer) -> None:
    """Makes the samples of the piano before the first page wants them."""
    if server.sounds.version:
        with contextlib.suppress(UserError):
            await server.sounds.read(0, "json")
