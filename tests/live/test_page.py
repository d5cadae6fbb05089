"""The page in a real browser, with a stand-in for the model."""

import asyncio
import contextlib
import itertools
import shutil
import threading
import time

import pytest

from sage_jax.live.server import LiveServer
from sage_jax.live.sounds import SoundStore
from sage_jax.music.midi import read_midi
from tests.live.stand_in import ABOUT, StandInHost

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


@contextlib.contextmanager
def serving(folder, sessions: int = 1):
    """A server in a thread of its own."""
    host = StandInHost(sessions)
    server = LiveServer(host, ABOUT, sessions=sessions, port=0, sounds=SoundStore(folder))
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        await server.start()
        await stopped.wait()
        await server.close()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield server, host
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sounds")


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=QUIET)
        yield browser
        browser.close()


@contextlib.contextmanager
def page_of(chromium, url: str, expected_errors: tuple[str, ...] = (), permissions=("midi", "midi-sysex"), **options):
    """A page whose errors fail the test, but for those that contain one of `expected_errors`."""
    context = chromium.new_context(permissions=list(permissions), **options)
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(url)
    yield page
    context.close()
    assert not [error for error in errors if not any(expected in error for expected in expected_errors)]


def until(page, expression: str, seconds: float = 20) -> None:
    """Waits; wait_for_function would need a page that allows eval."""
    last = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < last, expression
        page.wait_for_timeout(20)


def start(page) -> None:
    page.locator("#start:enabled").click()
    until(page, "live.sound.running && !!live.sound.samples.programs.get(0)")


def test_ten_seconds_by_the_computers_keys(folder, chromium):
    with serving(folder) as (server, host), page_of(chromium, server.url) as page:
        start(page)
        page.evaluate("live.peak = 0; setInterval(() => { live.peak = Math.max(live.peak, live.sound.level()); }, 20); 0")
        end, played = time.monotonic() + 10, 0
        while time.monotonic() < end:
            key = "zcbqet"[played % 6]
            page.keyboard.down(key)
            page.wait_for_timeout(120)
            page.keyboard.up(key)
            page.wait_for_timeout(80)
            played += 1
        page.wait_for_timeout(1500)
        (session,) = host.opened
        keys = [call for call in session.calls if call[0] == "on"]
        assert [call[1] for call in keys[:6]] == [48, 52, 55, 60, 64, 67] and len(keys) == played
        assert sum(call[0] == "off" for call in session.calls) == played
        counts = page.evaluate("live.sound.counts")
        assert counts["scheduled"] + counts["skipped"] == 2 * played and counts["skipped"] < played / 2
        assert 0.05 < page.evaluate("live.peak") <= 1, "nothing sounded"
        notes = page.evaluate("live.roll.notes.map((note) => [note.who, note.pitch, note.start, note.end])")
        assert {who for who, *_ in notes} == {"player", "model"}
        assert all(end is not None and 0 < end - start < 5 for _, _, start, end in notes)
        # The page stamps its notes with the server's clock.
        begun = [begin for who, _, begin, _ in notes if who == "player"]
        for before, after in itertools.pairwise(zip(begun, (call[4] for call in keys), strict=True)):
            assert after[1] - before[1] == pytest.approx(after[0] - before[0], abs=0.02)
        # The model's notes stand a quarter after the player's: the clocks of page and server agree.
        first = {who: begin for who, pitch, begin, _ in reversed(notes) if pitch == (48 if who == "player" else 55)}
        assert first["model"] - first["player"] == pytest.approx(0.5, abs=0.06)
        assert page.evaluate("live.sound.voices.size") == 0
        until(page, "document.getElementById('clock').textContent.endsWith('ms')")
        # Recordings.
        for button, name in (("MIDI", "live.mid"), ("WAV", "live.wav")):
            with page.expect_download() as download:
                page.get_by_role("button", name=button, exact=True).click()
            assert download.value.suggested_filename == name
            if button == "MIDI":
                assert len(read_midi(download.value.path()).notes) == played


def test_without_a_gesture_there_is_no_sound_but_clear_words(folder, chromium):
    """evaluate() of a test driver counts as a gesture, so the state is read without one."""
    with serving(folder) as (server, host), page_of(chromium, server.url) as page:
        devtools = page.context.new_cdp_session(page)

        def value(expression: str):
            wanted = {"expression": expression, "userGesture": False, "returnByValue": True}
            answer = devtools.send("Runtime.evaluate", wanted)
            return answer["result"].get("value")

        last = time.monotonic() + 10
        while not value("!document.getElementById('start').disabled") and time.monotonic() < last:
            time.sleep(0.05)
        assert value("document.getElementById('start').textContent") == "Click to start"
        assert value("new AudioContext().state") == "suspended" and value("navigator.userActivation.hasBeenActive") is False
        value("live.midi.press('key', 60, 90, performance.now())")  # a MIDI keyboard is no gesture
        assert "after a click" in value("document.getElementById('notice').textContent")
        assert not [call for call in host.opened[0].calls if call[0] == "on"]
        start(page)
        assert page.locator("#overlay").is_hidden()


def test_mouse_panic_settings_and_reload(folder, chromium):
    with serving(folder) as (server, host), page_of(chromium, server.url) as page:
        start(page)
        (session,) = host.opened
        key = page.locator('.key[data-pitch="64"]')
        box = key.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 5)
        page.mouse.down()
        until(page, "live.sound.voices.size === 1")
        page.mouse.move(box["x"] + box["width"] * 1.5, box["y"] + box["height"] - 5)  # on to the next key
        until(page, "live.roll.sounding(performance.now() / 1000).get(65) === 'player'")
        page.keyboard.press("Escape")
        until(page, "live.sound.voices.size === 0")
        page.mouse.up()
        played = [call[:2] for call in session.calls if call[0] in ("on", "off", "panic")]
        assert played == [("on", 64), ("off", 64), ("on", 65), ("panic",)]

        page.get_by_text("Trade", exact=True).click()
        page.locator("#qpm").fill("90")
        page.locator("#ensemble").select_option("band")
        page.locator("#meter").select_option("3/4")
        until(page, "live.controls.settings.meter[0] === 3")
        settings = session.settings
        assert (settings.mode, settings.qpm, settings.meter, settings.instruments) == ("trade", 90, (3, 4), (0, 32, 128))
        assert page.locator("#trade_bars").is_visible() and page.locator("#pause").is_hidden()
        page.locator("#click").check()
        page.keyboard.press("Enter")  # on a box it is not the shortcut
        page.locator("#take-over").click()
        page.reload()
        page.locator("#start:enabled").wait_for()
        assert host.closed == 1 and ("take_over",) in session.calls
        assert page.locator("#trade_bars").is_visible() and page.locator("output[for=qpm]").inner_text() == "90 bpm"


def test_a_hidden_tab_plays_on(folder, chromium):
    """Its timers are slowed down, as a browser does it for a tab that cannot be seen."""
    with serving(folder) as (server, _), page_of(chromium, server.url) as page:
        page.add_init_script("setInterval = setTimeout = requestAnimationFrame = () => 0;")
        page.reload()
        start(page)
        before = page.evaluate("live.connection.pings")
        page.locator("#click").check()
        page.keyboard.down("q")
        page.keyboard.up("q")
        until(page, "live.sound.counts.scheduled === 2")
        until(page, f"live.connection.pings > {before}")


def test_midi_keyboards(folder, chromium):
    with serving(folder) as (server, host):
        with page_of(chromium, server.url) as page:
            start(page)
            page.locator("#midi").click()
            until(page, "!/no MIDI keyboard/.test(document.getElementById('midi-state').textContent)")
            send = "for (const data of {}) live.midi.message('port', {{ data, timeStamp: performance.now() }});"
            page.evaluate(send.format("[[0x90, 60, 80], [0xb0, 64, 127], [0x80, 60, 0], [0x91, 62, 9], [0x91, 62, 0], [0xfe]]"))
            page.evaluate(send.format("[[0xb0, 64, 0], [0x90, 65, 70], [0xb0, 123, 0]]"))
            expected = [("on", 60), ("on", 62), ("off", 62), ("off", 60), ("on", 65), ("off", 65)]
            last = time.monotonic() + 5
            while len(host.opened[0].calls) < 1 + len(expected) and time.monotonic() < last:
                page.wait_for_timeout(20)
            assert [call[:2] for call in host.opened[0].calls[1:]] == expected
        with page_of(chromium, server.url, permissions=()) as page:
            page.add_init_script("navigator.requestMIDIAccess = () => Promise.reject(new DOMException('no'));")
            page.reload()
            start(page)
            page.locator("#midi").click()
            until(page, "/refused. Allow MIDI/.test(document.getElementById('midi-state').textContent)")


def test_a_full_house_and_a_lost_server(folder, chromium):
    with serving(folder) as (server, _):
        with page_of(chromium, server.url) as page:
            start(page)
            with page_of(chromium, server.url) as other:
                other.get_by_text("places are taken").wait_for()
        with page_of(chromium, server.url, ("ERR_CONNECTION_REFUSED",)) as page:  # the place is free again
            start(page)
            page.keyboard.down("q")
            until(page, "live.sound.voices.size > 0")
            page.evaluate("live.connection.socket.close()")
            page.get_by_text("Connection lost").wait_for()
            assert page.evaluate("live.sound.voices.size") == 0
            page.locator("#overlay").wait_for(state="hidden", timeout=8000)  # it comes back by itself


def test_without_the_extra_audio_simple_tones_sound(folder, chromium):
    with serving(folder) as (server, _):
        server.sounds.version = server._welcome["sounds"] = ""
        with page_of(chromium, server.url) as page:
            page.locator("#start:enabled").click()
            until(page, "live.sound.running")
            page.keyboard.down("q")
            until(page, "live.sound.level() > 0.02")
