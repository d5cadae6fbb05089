"""The way of the Multitrack Music Transformer, with random weights: no cache, so each event reads the whole piece again."""

import importlib.metadata

import device
import torch
from torch import nn
from x_transformers import Decoder

from sage_jax.benchmark.worker import serve

SIZES = (5, 1026, 13, 129, 33, 65)  # type, beat, position, pitch, duration, instrument
NOTE = 3  # of the types


class MMT(nn.Module):
    """Six embeddings are summed with that of the place in the sequence; six heads read the last row."""

    def __init__(self, job):
        super().__init__()
        width = job["width"]
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in SIZES)
        self.places = nn.Embedding(job["context_events"], width)
        self.decoder = Decoder(
            dim=width,
            depth=job["layers"],
            heads=job["heads"],
            attn_dim_head=job["head_width"],
            attn_flash=True,
            ff_mult=job["mlp_width"] / width,
        )
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in SIZES)

    def forward(self, events):
        hidden = sum(embed(events[..., field]) for field, embed in enumerate(self.embeddings))
        hidden = self.decoder(hidden + self.places.weight[: events.shape[1]])
        return [head(hidden[:, -1]) for head in self.heads]


class Subject:
    def __init__(self, job):
        device.prepare(job)
        self.events = job["events"]
        self.model = MMT(job).to(device.DEVICE, getattr(torch, job["dtype"])).eval()
        rows = job["context_events"] - self.events
        self.prompt = torch.stack([torch.randint(size, (job["batch"], rows)) for size in SIZES], -1)
        self.prompt[..., 0] = NOTE
        self.prompt[..., 1] = self.prompt[..., 1].sort(1).values
        self.prompt = self.prompt.to(device.DEVICE)
        self.run()
        self.about = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": None,
            "compile_seconds": 0.0,
            "tokens_per_note": 1.0,
            "device": device.name(),
            "measures": (
                "A forward pass over all events so far for each event, as one event is one note: six parallel heads on the "
                "last row, greedy, as notes whose beats never go back; no cache and so no prefill, no sampling; rebuilt from "
                "the paper's description, not the authors' code."
            ),
            "versions": {"torch": torch.__version__, "x-transformers": importlib.metadata.version("x-transformers")},
        }

    @torch.inference_mode()
    def run(self):
        events, times = self.prompt, [device.now()]
        for _ in range(self.events):
            _, beats, *others = self.model(events)
            past = torch.arange(beats.shape[1], device=beats.device) < events[:, -1, 1:2]
            fields = [head.argmax(-1) for head in (beats.masked_fill(past, -torch.inf), *others)]
            event = torch.stack([torch.full_like(fields[0], NOTE), *fields], -1)
            events = torch.cat([events, event[:, None]], 1)
            times.append(device.now())
        notes = [end - start for start, end in zip(times[:-1], times[1:], strict=True)]
        drawn = events.shape[1] - self.prompt.shape[1]
        counts = {"events_drawn": drawn, "notes_drawn": drawn * len(events)}
        return {"prefill_seconds": None, "seconds": notes, **counts, **device.memory()}


if __name__ == "__main__":
    serve(Subject)
