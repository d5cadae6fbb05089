"""MIDI-GPT's own session, grammar and sampler, with a GPT-2 of random weights. A session has one continuation: batch 1."""

import json
import pathlib
import random
import sys
from dataclasses import replace

import device
import midigpt
import torch
from midigpt import Bar, Note, Score, Track
from midigpt._core import EncoderConfig
from midigpt.attributes.base import AttributeAnalyzer
from midigpt.inference import GenerationRequest, InferenceConfig, InferenceEngine, TrackPrompt
from midigpt.inference.model.gpt2 import GPT2Config, GPT2LMHeadModel
from midigpt.inference.session import GenerationCancelled
from midigpt.tokenizer.tokenizer import Tokenizer
from note_times import NoteClock

from sage_jax.benchmark.worker import serve

MIDI = pathlib.Path(__file__).parents[1] / "midi"
BARS = 8  # of the window; the session generates its second half
NOTES_PER_TRACK = 100  # of a prompt
ENCODER = {
    "resolution": 12,
    "decode_resolution": 480,
    "velocity_levels": 32,
    "num_bars_map": [BARS],
    "time_signatures": [f"{beats}/{unit}" for unit in (2, 4, 8, 16) for beats in range(1, 17)],
}


class Clock:
    """A cancel event that counts tokens. The session queries it before each token; it is set after the last one."""

    def __init__(self, clock):
        self.clock, self.started = clock, False

    def is_set(self):
        if not self.started:
            self.started, self.clock.start = True, device.now()  # excludes planning
        elif self.clock.count < self.clock.tokens:  # a session that has ended may query again
            self.clock.token()
        return self.clock.count >= self.clock.tokens


def tokens_per_note(tokenizer):
    """The mean over the windows of the embedded corpus."""
    tokens = notes = 0
    for path in sorted(MIDI.rglob("*.mid")):
        score = Score.from_midi(str(path))
        for first in range(0, len(score.tracks[0].bars) - BARS + 1, BARS):
            tracks = [replace(track, bars=track.bars[first : first + BARS]) for track in score.tracks]
            tokens += len(tokenizer.encode(replace(score, tracks=tracks)))
            notes += sum(len(bar.notes) for track in tracks for bar in track.bars)
    return tokens / notes


class MidiGPT:
    def __init__(self, job):
        if job["batch"] != 1:
            sys.exit(f"error: a session of midigpt draws one continuation, not {job['batch']}")
        device.prepare(job)
        self.events = job["events"]
        encoder = EncoderConfig.from_json(json.dumps(ENCODER))
        encoder.derive_token_domains()
        analyzer = AttributeAnalyzer.from_config(encoder)
        tokenizer = Tokenizer(encoder, analyzer)
        config = GPT2Config(
            vocab_size=tokenizer.vocab_size(),
            n_positions=5 * job["context_events"] + 64,
            n_embd=job["embed_dim"],
            n_layer=job["num_layers"],
            n_head=job["num_heads"],
        )
        dtype = getattr(torch, job["dtype"])
        model = GPT2LMHeadModel(config).to(device.DEVICE, dtype).eval()
        self.engine = InferenceEngine(model, tokenizer, analyzer)
        self.engine.warmup()
        per_note = tokens_per_note(tokenizer)
        self.tokens = round(self.events * per_note)
        self.score = prompt(job["context_events"] - self.events, random.Random(job["seed"]))
        written = TrackPrompt(id=0, bars=list(range(BARS // 2, BARS)), autoregressive=True)
        others = [TrackPrompt(id=index, bars=[]) for index in range(1, len(self.score.tracks))]
        options = InferenceConfig(seed=job["seed"], model_dim=BARS, bars_per_step=BARS // 2, max_attempts=1)
        self.request = GenerationRequest(tracks=[written, *others], config=options)
        self.run()
        self.metadata = {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "cache_bytes": 2 * job["num_layers"] * job["embed_dim"] * (self.prompt_tokens + self.tokens) * dtype.itemsize,
            "compile_seconds": 0.0,
            "tokens_per_note": per_note,
            "device": device.name(),
            "measures": (
                f"A session with its cache, grammar and sampler that generates bars after a prompt of {self.prompt_tokens} "
                "tokens; a note is the mean number of tokens per note in the embedded corpus (the prefill draws the first "
                "token); no planning, no encoding or decoding of notes."
            ),
            "versions": {"torch": torch.__version__, "midigpt": midigpt.__version__},
        }

    def run(self):
        session = self.engine.session(self.score, self.request)
        clock = NoteClock(self.events, self.tokens)
        session.cancel_event = Clock(clock)
        try:
            session.run()
        except GenerationCancelled:
            self.prompt_tokens = session.context_len
            return clock.result()
        raise RuntimeError(f"the bars were full after {clock.count} tokens instead of {self.tokens}")


def prompt(notes, rng):
    """Random notes in the first half of the window, on enough tracks to keep the density of music. The second half is empty."""
    tracks = [Track(bars=[Bar() for _ in range(BARS)], instrument=index % 128) for index in range(-(-notes // NOTES_PER_TRACK))]
    for index in range(notes):
        bars = tracks[index % len(tracks)].bars[: BARS // 2]
        rng.choice(bars).notes.append(Note(rng.randrange(24, 96), 80, 40 * rng.randrange(48), 240))
    return Score(tracks=tracks)


if __name__ == "__main__":
    serve(MidiGPT)
