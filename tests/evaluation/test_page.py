"""The listening test in a real browser: judged by mouse and keys, closed, resumed, downloaded and sent."""

import contextlib
import http.server
import json
import pathlib
import shutil
import threading

import pytest

from sage_jax.evaluation.listening import ListeningConfig, make_test
from sage_jax.evaluation.responses import load_responses
from tests.evaluation.test_listening import write_systems

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"),
]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder and keeps the posted data; answers 503 while `refusing`."""

    def __init__(self, folder: pathlib.Path):
        server = self
        self.folder, self.posted, self.refusing = folder, [], False

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if not server.refusing:
                    server.posted.append(body)
                self.send_response(503 if server.refusing else 204)
                self.end_headers()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    server = Server(folder)
    address = f"http://127.0.0.1:{server.server_port}"
    post = f"{address}/answers"
    config = ListeningConfig(ratings=3, pairs=2, prompt_bars=1, anchors=("truth",), title="Five clips", post=post)
    key = make_test(write_systems(folder, 2), folder / "site", config, say=lambda line: None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"{address}/site/index.html", json.loads(key.read_text())
    server.shutdown()


@contextlib.contextmanager
def browser(profile: pathlib.Path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=QUIET, accept_downloads=True
        )
        page = context.pages[0]
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
        assert not errors
        context.close()


def listen(page, button: str) -> None:
    """Plays a clip until it can be judged."""
    page.get_by_role("button", name=button, exact=True).click()
    page.wait_for_function("() => playing && playing.enough() || !playing", timeout=20_000)


def test_a_listener_completes_the_test(served, tmp_path):
    server, address, key = served
    with browser(tmp_path / "profile") as page:
        page.goto(address)
        assert page.title() == "Five clips" and page.locator("#intro").is_visible()
        page.locator("#years").select_option("10")
        page.get_by_role("button", name="Begin").click()

        # A single clip, judged by mouse after listening.
        assert page.get_by_role("button", name="4 Good").is_disabled() and page.locator("#next").is_disabled()
        listen(page, "Play")
        page.get_by_role("button", name="4 Good").click()
        assert page.get_by_role("button", name="4 Good").get_attribute("aria-pressed") == "true"
        page.locator("#next").click()

        # The next clip, judged by keys.
        page.keyboard.press("Space")
        page.wait_for_function("() => players[0].enough()", timeout=20_000)
        page.keyboard.press("2")
        page.keyboard.press("Enter")
        assert page.locator("#progress .faint").inner_text() == "2 of 5 judged"
        with page.expect_download() as early:
            page.get_by_role("button", name="Save what there is so far").click()
        assert json.loads(pathlib.Path(early.value.path()).read_text())["complete"] is False

    # The page was closed; the same browser resumes.
    with browser(tmp_path / "profile") as page:
        page.goto(address)
        assert page.locator("#trial").is_visible() and page.locator("#progress .faint").inner_text() == "2 of 5 judged"
        page.keyboard.press("Backspace")
        assert page.get_by_role("button", name="2 Poor").get_attribute("aria-pressed") == "true"
        page.keyboard.press("3")  # changes the answer
        page.keyboard.press("Enter")
        page.keyboard.press("Space")
        page.wait_for_function("() => players[0].enough()", timeout=20_000)
        page.keyboard.press("5")
        page.keyboard.press("Enter")
        for choice in ("1", "2"):
            for clip in "ab":
                page.keyboard.press(clip)
                page.wait_for_function(f"() => players[{'ab'.index(clip)}].enough()", timeout=20_000)
            page.keyboard.press(choice)
            page.keyboard.press("Enter")
        assert page.locator("#end").is_visible()

        # A failing server loses no answers.
        server.refusing = True
        page.get_by_role("button", name="Send the answers").click()
        page.wait_for_function("() => document.getElementById('sent').textContent.includes('Nothing is lost')")
        server.refusing = False
        page.get_by_role("button", name="Send the answers").click()
        page.wait_for_function("() => document.getElementById('sent').textContent.startsWith('Sent.')")
        with page.expect_download() as whole:
            page.get_by_role("button", name="Download the answers").click()
        folder = tmp_path / "answers"
        folder.mkdir()
        whole.value.save_as(folder / whole.value.suggested_filename)

    lines = []
    responses = load_responses(folder, key, lines.append)
    assert not lines and [response.value for response in responses] == [4, 3, 5, 1.0, 0.5]
    posted = json.loads(server.posted[0])
    downloaded = json.loads(next(folder.iterdir()).read_text())
    assert posted["complete"] and posted["years"] == "10" and posted["answers"] == downloaded["answers"]


def test_listening_to_the_prompt_does_not_count(served, tmp_path):
    """Opened from disk, where the browser can seek in a clip."""
    server, _, _ = served
    with browser(tmp_path / "profile") as page:
        page.goto((server.folder / "site" / "index.html").as_uri())
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("button", name="Play", exact=True).click()
        page.wait_for_function("() => players[0].audio.currentTime > 0.5 * players[0].clip.prompt")
        assert page.evaluate("players[0].listened") == 0
        page.evaluate("players[0].audio.currentTime = players[0].clip.seconds - 0.05")  # nor does seeking to the end
        page.wait_for_function("() => !playing")
        assert page.get_by_role("button", name="4 Good").is_disabled()


def test_listening_counts_where_the_page_is_drawn_rarely(served, tmp_path):
    """As on a busy machine: two seconds between frames."""
    _, address, _ = served
    with browser(tmp_path / "profile") as page:
        page.add_init_script("window.requestAnimationFrame = draw => setTimeout(draw, 2000)")
        page.goto(address)
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("button", name="Play", exact=True).click()
        page.wait_for_function("() => !playing", timeout=60_000)
        assert page.evaluate("players[0].enough()") and page.get_by_role("button", name="4 Good").is_enabled()


def test_a_missing_clip_is_reported_and_skipped(served, tmp_path):
    _, address, _ = served
    with browser(tmp_path / "profile") as page:
        page.route("**/*.mp3", lambda route: route.fulfill(status=404))
        page.goto(address)
        page.get_by_role("button", name="Begin").click()
        page.wait_for_function("() => !document.getElementById('warning').hidden")
        assert "cannot be loaded" in page.locator("#warning").inner_text()
        # Clips that cannot be loaded are skipped.
        for _ in range(5):
            page.wait_for_function("() => !document.getElementById('next').disabled")
            page.locator("#next").click()
        assert page.locator("#end").is_visible()
