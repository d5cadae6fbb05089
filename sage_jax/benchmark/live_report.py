"""The table of live play in a benchmark report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sage_jax.benchmark.config import LiveCell
from sage_jax.benchmark.measurement import Measurement
from sage_jax.live.queue import SKIPPED_AFTER, TOLERANCE
from sage_jax.markdown import markdown_table

HEADER = (
    "model", "mode", "quarters a minute", "lead, quarters", "players", "minutes", "notes", "on time",
    "late by p50, p95, p99, ms", "skipped", "takeover p50, p95, ms", "staleness p50, p95, ticks", "event p50, p95, ms",
    "prefill p95, ms", "rollback p95, ms", "cores", "memory, MB", "growth", "drift, ms",
)  # fmt: skip
ABOUT = f"""\
Programs replay pieces in real time to the server of `launch.live`, over its socket. In the mode answer they play two bars and
rest three, in trade they take turns with the model, and in accompany they never stop.

A note is on time if it reached the player at most {TOLERANCE * 1000:.0f} ms after its due time. One that would be more than
{SKIPPED_AFTER * 1000:.0f} ms late is skipped, and counts as not on time. Where a model can't keep up it leaves out what it
would play late, so that it plays fewer notes. Takeover is from the end of the player's pause to the model's first note.
Staleness is the distance, in ticks of a twelfth of a quarter, between a note and the place up to which the model had read the
player when it drew it. Lateness and counts are of all players together, other figures of the worst player.

`cores` are processor seconds of the server in each second. Growth is that of its memory between the second and the last tenth
of the time. Drift is by how much the offset of the server's clock seemed to change, as a page measures it."""


def table(cells: Sequence[tuple[LiveCell, Sequence[Measurement]]]) -> str:
    """How it is measured, a row for each system of each cell, and what went wrong."""
    measured = [(cell, each) for cell, found in cells for each in found]
    rows = [_row(cell, each.system, each.live[0]) for cell, each in measured if each.ok]
    problems = [f"Not measured: `{each.system}`, {cell}: {each.error}" for cell, each in measured if not each.ok]
    problems += [
        f"`{each.system}`, {cell}: {text}." for cell, each in measured if each.ok for text in each.live[0]["problems"]
    ]
    return "\n\n".join([ABOUT, markdown_table(HEADER, rows), *problems])


def _row(cell: LiveCell, system: str, found: Mapping[str, Any]) -> list[str]:
    together = lambda values, form="{:,.0f}": ", ".join(form.format(value) for value in values)
    pair = lambda name, form="{:,.0f}": together([found[f"{name}_p50"], found[f"{name}_p95"]], form)
    return [
        system,
        cell.mode,
        f"{cell.qpm:g}",
        f"{cell.lead:g}" if cell.mode == "accompany" else "-",
        f"{cell.batch}",
        f"{cell.events / 60:.1f}",
        f"{found['notes']:,}",
        f"{math.floor(10_000 * found['on_time']) / 10_000:.2%}",  # 100% has no late note
        together([1000 * each for each in found["lateness"]], "{:,.1f}"),
        f"{found['skipped']:,}",
        pair("takeover") if found["answers"] and cell.mode == "answer" else "-",
        pair("staleness"),
        pair("event", "{:,.1f}"),
        f"{found['prefill_p95']:,.0f}",
        f"{found['rollback_p95']:,.0f}",
        f"{found['cores']:.2f}",
        f"{found['megabytes']:,.0f}",
        f"{found['growth']:+.1%}",
        f"{1000 * found['drift']:.1f}",
    ]
