"""The Multitrack Music Transformer with random weights. It has no cache: each event is a forward pass over the whole piece."""

import importlib.metadata
import itertools

import device
import torch
from torch import nn
from x_transformers import Decoder

from sage_jax.benchmark.worker import serve

SIZES = (5, 1026, 13, 129, 33, 65)  # type, beat, position, pitch, duration, instrument
NOTE = 3  # id of the type


class MMT(nn.Module):
    """The sum of six embeddings and a position embedding in, six output heads on the last row."""

    def __init__(self, job):
        super().__init__()
        width = job["embed_dim"]
        self.embeddings = nn.ModuleList(nn.Embedding(size, width) for size in SIZES)
        self.positions = nn.Embedding(job["context_events"], width)
        self.decoder = Decoder(
            dim=width,
            depth=job["num_layers"],
            heads=job["num_heads"],
            attn_dim_head=job["head_dim"],
            attn_flash=True,
            ff_mult=job["mlp_dim"] / width,
        )
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in SIZES)

    def forward(self, events):
        hidden = sum(embed(events[..., field]) for field, embed in enumerate(self.embeddings))
        hidden = self.decoder(hidden + self.positions.weight[: events.shape[1]])
        return [head(hidden[:, -1]) for head in self.heads]


class MMTDecoder:
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
        self.metadata = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": None,
            "compile_seconds": 0.0,
            "tokens_per_note": 1.0,
            "device": device.name(),
            "measures": (
                "One forward pass over all events so far per event, and one event per note: six parallel heads on the last "
                "row, greedy, restricted to notes whose beats never decrease; no cache and so no prefill, no sampling; "
                "written from the paper's description, not the authors' code."
            ),
            "versions": {"torch": torch.__version__, "x-transformers": importlib.metadata.version("x-transformers")},
        }

    @torch.inference_mode()
    def run(self):
        events, times = self.prompt, [device.now()]
        for _ in range(self.events):
            _, beats, *others = self.model(events)
            earlier = torch.arange(beats.shape[1], device=beats.device) < events[:, -1, 1:2]
            fields = [head.argmax(-1) for head in (beats.masked_fill(earlier, -torch.inf), *others)]
            event = torch.stack([torch.full_like(fields[0], NOTE), *fields], -1)
            events = torch.cat([events, event[:, None]], 1)
            times.append(device.now())
        notes = [end - start for start, end in itertools.pairwise(times)]
        drawn = events.shape[1] - self.prompt.shape[1]
        counts = {"events_drawn": drawn, "notes_drawn": drawn * len(events)}
        return {"prefill_seconds": None, "seconds": notes, **counts, **device.memory()}


if __name__ == "__main__":
    serve(MMTDecoder)
