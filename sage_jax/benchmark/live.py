"""Live play under measurement: a server in a process of its own, and players who replay pieces to it in real time.

The worker of a cell of live play (worker.py). What the server does is what launch.live does, its socket included.
"""

import asyncio
import contextlib
import multiprocessing
import os
import pathlib
import time
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import numpy as np

from sage_jax.benchmark.live_client import Played, keys_of, play
from sage_jax.benchmark.worker import serve as serve_worker
from sage_jax.corpus.sources import list_corpus
from sage_jax.environment import describe
from sage_jax.live.queue import TOLERANCE
from sage_jax.music.midi import read_midi
from sage_jax.music.notes import bar_ticks

SAMPLE_INTERVAL = 2.0  # seconds between two looks at the server's memory
START_TIMEOUT = 600.0


class LivePlay:
    """`sessions` players at once, each with a piece of its own.

    job: model (a name or a folder), mode, qpm, meter, lead (quarters), sessions, seconds, corpus, and seed.
    """

    def __init__(self, job: dict[str, Any]):
        self._job = job
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self._server = multiprocessing.get_context("spawn").Process(
            target=serve_model, args=(theirs, job["model"], job["sessions"]), daemon=True
        )
        self._server.start()
        theirs.close()
        try:
            if not ours.poll(START_TIMEOUT):
                raise SystemExit("the server did not start")
            self._url, self._ticks_per_quarter, parameters = ours.recv()
        except EOFError:
            raise SystemExit("the server ended while it started") from None
        self.metadata = {
            "measures": "replays pieces to launch.live's server over its socket, in real time",
            "parameters": parameters,
            "versions": describe(),
        }

    def run(self) -> dict[str, Any]:
        """Plays once; returns `live`, one entry of what `_summary` finds."""
        assert self._server.pid is not None
        watch = Watch(self._server.pid)
        played = asyncio.run(self._play(watch))
        return {"live": [self._summary(played, watch)], "peak_megabytes": max(watch.megabytes, default=0.0)}

    async def _play(self, watch: "Watch") -> list[Played]:
        job, watching = self._job, asyncio.create_task(watch.look())
        settings = {name: job[name] for name in ("mode", "qpm", "meter", "lead", "trade_bars", "seed")}
        async with aiohttp.ClientSession() as http:
            try:
                parts = await asyncio.to_thread(self._parts)
                watch.begin()
                players = (
                    play(http, self._url, keys, {**settings, "seed": job["seed"] + number}, job["seconds"])
                    for number, keys in enumerate(parts)
                )
                return await asyncio.gather(*players)
            finally:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    def _parts(self) -> list[Any]:
        """What each player plays."""
        job, parts, grid = self._job, [], self._ticks_per_quarter
        ticks = int(job["seconds"] * job["qpm"] * grid / 60)
        numerator, denominator = job["meter"]
        bar = bar_ticks(numerator, denominator, grid)
        paths = [path for _, path in list_corpus(job["corpus"])]
        for number in range(job["sessions"]):
            piece = read_midi(paths[number % len(paths)], grid)
            parts.append(keys_of(piece, bar, ticks, job["mode"], job["trade_bars"]))
        return parts

    def _summary(self, played: list[Played], watch: "Watch") -> dict[str, Any]:
        """Notes of all players together. A note that was skipped is not on time."""
        lateness = np.array([each for player in played for each in player.lateness])
        total = lambda name: sum(player.statistics.get(name, 0) for player in played)
        worst = lambda name: max((player.statistics.get(name) or 0.0 for player in played), default=0.0)
        skipped, on_time = total("skipped"), int((lateness <= TOLERANCE).sum())
        drift = max((max(player.offsets) - min(player.offsets) for player in played if player.offsets), default=0.0)
        percentiles = np.percentile(lateness, (50, 95, 99)).tolist() if len(lateness) else [0.0] * 3
        return {
            "seconds": self._job["seconds"],
            "notes": len(lateness),
            "skipped": skipped,
            "on_time": on_time / max(len(lateness) + skipped, 1),
            "lateness": percentiles,
            "answers": total("answers"),
            "player_notes": total("player_notes"),
            "problems": sorted({text for player in played for text in player.problems}),
            **{name: worst(name) for name in STATISTICS},
            "cores": watch.cores,
            "megabytes": watch.megabytes[-1] if watch.megabytes else 0.0,
            "growth": watch.growth,
            "drift": drift,
        }


# Of the server's statistics: milliseconds, and ticks for staleness. Of several sessions that with the largest value counts.
STATISTICS = (
    "takeover_p50", "takeover_p95", "staleness_p50", "staleness_p95", "prefill_p95", "rollback_p95", "event_p50", "event_p95",
)  # fmt: skip


class Watch:
    """The processor time and the resident memory of a process, from /proc."""

    def __init__(self, pid: int):
        self._folder, self._began, self._cpu = pathlib.Path("/proc") / str(pid), 0.0, 0.0
        self.megabytes: list[float] = []

    def begin(self) -> None:
        """Counts from now on."""
        self._began, self._cpu, self.megabytes = time.monotonic(), self._cpu_seconds(), []

    async def look(self) -> None:
        """Notes the memory now and then, until it is cancelled."""
        while True:
            with contextlib.suppress(OSError):
                pages = int((self._folder / "statm").read_text().split()[1])
                self.megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            await asyncio.sleep(SAMPLE_INTERVAL)

    def _cpu_seconds(self) -> float:
        try:
            fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def cores(self) -> float:
        """The processor seconds in each second since `begin`."""
        return (self._cpu_seconds() - self._cpu) / max(time.monotonic() - self._began, 1e-9)

    @property
    def growth(self) -> float:
        """Memory in the last tenth of the time over that in the second tenth, minus 1. The first tenth warms up."""
        tenth = len(self.megabytes) // 10
        if not tenth:
            return 0.0
        return float(np.mean(self.megabytes[-tenth:]) / np.mean(self.megabytes[tenth : 2 * tenth]) - 1)


def serve_model(answer: Connection, source: str, sessions: int) -> None:
    """Serves a model until the process is ended; sends its address, grid and number of parameters once it plays."""
    import jax

    from sage_jax.api import load
    from sage_jax.live.host import LiveHost
    from sage_jax.live.serve import serve

    model = load(source)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model.params))

    def say(line: str) -> None:
        answer.send((line.split()[2], model.tokenizer.grid.ticks_per_quarter, parameters))  # "Play at URL ..."

    serve(lambda: LiveHost(model, sessions), sessions=sessions, port=0, say=say)


if __name__ == "__main__":
    serve_worker(LivePlay)
