"""Milliseconds per note of the fused decoder, for every key-value sharing, beside what memory bandwidth allows.

  python -m sage_jax.benchmark.decode --config=configs/sage.py:base --contexts=1024,4096 --batches=1,8
  python -m sage_jax.benchmark.decode --config=configs/sage.py:demo --contexts=1024 --batches=1,4
  python -m sage_jax.benchmark.decode --config=configs/sage.py:debug --contexts=320 --batches=2 --rounds=2

Weights are random: speed does not depend on them. All sharings of one row are compiled first and then run in turn, round
after round, with a measurement of the bandwidth in every round. A note is one event step, five tokens.
"""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags
from rich.console import Console

from launch._main import run
from sage_jax.benchmark.environment import describe
from sage_jax.benchmark.roofline import bandwidth_probe, event_step_bytes
from sage_jax.decoding.generate import DecodeState, Generator
from sage_jax.decoding.grammar import Limits
from sage_jax.decoding.sampling import SamplingConfig
from sage_jax.errors import UserError
from sage_jax.files import replacing
from sage_jax.models.cache import Cache
from sage_jax.models.config import ModelConfig
from sage_jax.models.transformer import Transformer
from sage_jax.training.config import RunConfig

SHARINGS = {
    "mha": dict(sharing="mha"),
    "gqa-5": dict(sharing="gqa", kv_heads=5),
    "gqa-2": dict(sharing="gqa", kv_heads=2),
    "mqa": dict(sharing="mqa"),
    "as_kvhs-all-1": dict(sharing="as_kvhs", scope="all"),
    "as_kvhs-own-1": dict(sharing="as_kvhs", scope="own"),
    "as_kvhs-mixed-1": dict(sharing="as_kvhs", scope="mixed"),
}

CONFIG = config_flags.DEFINE_config_file("config", "configs/sage.py:base", "The model's size.", lock_config=True)
CONTEXTS = flags.DEFINE_list("contexts", ["1024", "4096"], "Tokens of context, all of them allocated and filled.")
BATCHES = flags.DEFINE_list("batches", ["1", "8"], "Rows decoded at once.")
DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "What weights and cache are stored and computed in.")
NAMES = flags.DEFINE_list("sharings", list(SHARINGS), "Which to measure.")
ROUNDS = flags.DEFINE_integer("rounds", 9, "How often each is run, in turn; the first round is not counted.", lower_bound=2)
EVENTS = flags.DEFINE_integer("events", 8, "Event steps in a run.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "File for one JSON line per measurement.")


class Subject:
    """One model, ready to decode behind a full context."""

    def __init__(self, config: ModelConfig, tokenizer, batch: int, context_events: int, events: int):
        events_shape = jnp.zeros((1, 1, config.num_attributes), jnp.int32)
        params = jax.jit(Transformer(config).init)(jax.random.key(0), events_shape)["params"]
        generator = Generator(config, params, tokenizer)
        del params
        self.config, self.events, self.filled = config, events, context_events - events
        self.bytes = event_step_bytes(config, batch, context_events)
        self._params = generator.params
        self._limits = Limits(
            max_events=jnp.int32(events),
            first_bar=jnp.zeros(batch, jnp.int32),
            stop_bar=jnp.full(batch, np.iinfo(np.int32).max),
            may_end=jnp.bool_(False),
            instruments=jnp.ones(config.vocab_sizes[1], bool),
        )
        self._knobs = SamplingConfig(top_p=0.98).knobs
        self._state = DecodeState(
            cache=Cache.empty(config, batch, context_events),
            logits=jnp.zeros((batch, config.vocab_sizes[0])),
            grammar=generator.grammar.start(batch),
            keys=jax.random.split(jax.random.key(0), batch),
            step=jnp.int32(0),
            finished=jnp.zeros(batch, bool),
            events=jnp.zeros((batch, events, config.num_attributes), jnp.int16),
        )
        began = time.perf_counter()
        decode = jax.jit(generator._decode, donate_argnums=1)
        self._decode = decode.lower(self._params, self._state, self._knobs, self._limits).compile()
        self.compile_seconds = time.perf_counter() - began

    def seconds_per_event(self) -> float:
        """Runs the event steps once."""
        cache = self._state.cache.replace(length=jnp.int32(self.filled))
        self._state = self._state.replace(step=jnp.int32(0), cache=cache)
        jax.block_until_ready(self._state)
        began = time.perf_counter()
        self._state = jax.block_until_ready(self._decode(self._params, self._state, self._knobs, self._limits))
        return (time.perf_counter() - began) / self.events


def measure(model: ModelConfig, tokenizer, batch: int, context: int, names: list[str], rounds: int, events: int) -> list[dict]:
    """One row for each sharing: median and quartiles of milliseconds per note over the rounds but the first."""
    subjects = {}
    for name in names:
        if name not in SHARINGS:
            raise UserError(f"--sharings has {name!r}; choose from {', '.join(SHARINGS)}")
        config = dataclasses.replace(model, **SHARINGS[name])
        subjects[name] = Subject(config, tokenizer, batch, context // model.num_attributes, events)
    bandwidth = bandwidth_probe()
    times = {name: [] for name in subjects}
    rates = []
    for _ in range(rounds):
        rates.append(bandwidth())
        for name, subject in subjects.items():
            times[name].append(subject.seconds_per_event())
    rate = float(np.median(rates[1:]))
    return [
        dict(
            sharing=name,
            batch=batch,
            context=context,
            ms_per_note=1000 * float(np.median(times[name][1:])),
            ms_per_note_quartiles=[1000 * float(q) for q in np.percentile(times[name][1:], [25, 75])],
            runs=rounds - 1,
            megabytes=subject.bytes / 1e6,
            bandwidth_gb_per_s=rate / 1e9,
            roofline_share=subject.bytes / rate / float(np.median(times[name][1:])),
            compile_seconds=subject.compile_seconds,
        )
        for name, subject in subjects.items()
    ]


def main() -> None:
    config = RunConfig.from_dict(CONFIG.value.to_dict())
    model = dataclasses.replace(config.model, dtype=DTYPE.value)
    setting = dict(
        **describe(),
        layers=model.layers,
        width=model.width,
        heads=model.heads,
        head_width=model.head_width,
        dtype=model.dtype,
    )
    console = Console()
    console.print(setting)
    rows = []
    print("| sharing | batch | context | ms per note (quartiles) | notes/s | MB per note | share of roofline |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for context in map(int, CONTEXTS.value):
        for batch in map(int, BATCHES.value):
            for row in measure(model, config.tokenizer, batch, context, NAMES.value, ROUNDS.value, EVENTS.value):
                low, high = row["ms_per_note_quartiles"]
                cells = [
                    row["sharing"],
                    f"{batch}",
                    f"{context:,}",
                    f"{row['ms_per_note']:.2f} ({low:.2f} to {high:.2f})",
                    f"{1000 * batch / row['ms_per_note']:,.0f}",
                    f"{row['megabytes']:,.0f}",
                    f"{row['roofline_share']:.0%}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
                rows.append({**setting, **row})
    if OUTPUT.value:
        with replacing(OUTPUT.value) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    run(main)
