"""An installed Firefox, driven over WebDriver BiDi (https://w3c.github.io/webdriver-bidi). Playwright drives only its own."""

import asyncio
import contextlib
import itertools
import json
import pathlib
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

FIREFOX = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}
START_SECONDS = 60
ADDRESS = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")


class Page:
    """One page. errors: what its console reported as errors, and its uncaught exceptions."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket, self._numbers, self._answers = socket, itertools.count(1), {}
        self._context, self.errors = "", list[str]()

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a command. Raises AssertionError for one that failed."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        async with asyncio.timeout(30):
            answer = await self._answers[number]
        assert answer["type"] == "success", answer
        return answer["result"]

    async def listen(self) -> None:
        """Takes what the browser sends, until it ends."""
        async for message in self._socket:
            body = json.loads(message.data)
            if body.get("id") in self._answers:
                self._answers.pop(body["id"]).set_result(body)
            elif body.get("method") == "log.entryAdded" and body["params"]["level"] == "error":
                self.errors.append(body["params"]["text"])

    async def open(self) -> None:
        await self.send("session.new", capabilities={})
        await self.send("session.subscribe", events=["log.entryAdded"])
        tree = await self.send("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]

    async def goto(self, url: str) -> None:
        await self.send("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression that JSON can hold."""
        wrapped = f"JSON.stringify((() => {expression})() ?? null)"
        target = {"context": self._context}
        answer = await self.send("script.evaluate", expression=wrapped, target=target, awaitPromise=False)
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    async def until(self, expression: str, seconds: float = 20) -> None:
        async with asyncio.timeout(seconds):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.02)

    async def click(self, element: str) -> None:
        """Clicks the middle of the element with this id."""
        middle = "(({ x, y, width, height }) => [x + width / 2, y + height / 2])"
        x, y = map(int, await self.evaluate(f"{middle}(document.getElementById('{element}').getBoundingClientRect())"))
        buttons = [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        await self._act("pointer", [{"type": "pointerMove", "x": x, "y": y}, *buttons])

    async def press(self, key: str, seconds: float) -> None:
        """Holds a key of the computer's keyboard."""
        pause = {"type": "pause", "duration": int(1000 * seconds)}
        await self._act("key", [{"type": "keyDown", "value": key}, pause, {"type": "keyUp", "value": key}])

    async def _act(self, kind: str, steps: list[dict[str, Any]]) -> None:
        await self.send("input.performActions", context=self._context, actions=[{"type": kind, "id": kind, "actions": steps}])


@contextlib.asynccontextmanager
async def firefox_page(folder: pathlib.Path) -> AsyncIterator[Page]:
    """A page of a headless Firefox with a profile of its own in `folder`."""
    assert FIREFOX is not None
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (folder / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--profile", str(folder), "--remote-debugging-port", "0", "about:blank"]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            while (found := ADDRESS.search(line := await process.stderr.readline())) is None:
                assert line, "Firefox ended while it started"
        draining = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{found[1].decode()}/session", max_msg_size=0) as socket:
            page = Page(socket)
            listening = asyncio.create_task(page.listen())
            await page.open()
            yield page
            listening.cancel()
        draining.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
