"""The page in Firefox, with a stand-in for the model."""

import asyncio

import pytest

from tests.live.clients import world
from tests.live.firefox import FIREFOX, firefox_page

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(FIREFOX is None, reason="no Firefox here; on Debian: apt-get install firefox-esr"),
]


def test_it_plays_and_is_answered(tmp_path):
    """A click starts it, the computer's keys play, and the model answers. A machine without a sound device gets clear words."""

    async def play() -> None:
        (tmp_path / "profile").mkdir()
        async with world(tmp_path, sessions=1) as all_, firefox_page(tmp_path / "profile") as page:
            await page.goto(all_.serving.url)
            await page.until("!document.getElementById('start').disabled")
            await page.click("start")
            await page.until("document.getElementById('overlay').hidden")
            silent = "document.getElementById('notice').textContent.startsWith('The browser found no sound device')"
            await page.until(f"live.sound.running || {silent}")
            for key in "zcbqet":
                await page.press(key, 0.1)
            (session,) = all_.host.opened
            await all_.until(lambda: sum(call[0] == "off" for call in session.calls) == 6)
            assert [call[1] for call in session.calls if call[0] == "on"] == [48, 52, 55, 60, 64, 67]
            await page.until("live.roll.notes.length >= 18 && live.roll.notes.every((note) => note.end !== null)")
            notes = await page.evaluate("live.roll.notes.map((note) => [note.who, note.pitch, note.end - note.start])")
            assert [pitch for who, pitch, _ in notes if who == "player"] == [48, 52, 55, 60, 64, 67]
            assert {55, 59, 62, 67, 71, 74} <= {pitch for who, pitch, _ in notes if who == "model"}
            assert all(0.05 < length < 5 for who, _, length in notes if who == "player")
            await page.until("document.getElementById('clock').textContent.endsWith('ms')")
            assert not page.errors

    asyncio.run(play())
