"""The flat model with all heads in PyTorch: its train step, eager or, where job["compiled"] says so, through torch.compile.

Rebuilt from the papers that ours is built from: RMSNorm (arXiv 1910.07467), SwiGLU (arXiv 2002.05202), rotary positions over
events (arXiv 2104.09864), a table of embeddings and a head for each attribute. Shapes: B batch, N events, A attributes,
T = N A tokens, D width, H heads, h head width.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sage_jax.benchmark.worker import peak_megabytes, serve

ROPE_BASE = 10_000.0
CLIP_NORM = 1.0


class Block(nn.Module):
    """Attention and a gated MLP. Queries, keys and values are one product, as are the gate and what it lets through."""

    def __init__(self, width, heads, head_width, mlp_width):
        super().__init__()
        self.head_width = head_width
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.query_key_value = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.gate_up = nn.Linear(width, 2 * mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        mixed = self.query_key_value(self.attention_norm(x)).view(B, T, 3, -1, self.head_width)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)  # [B, H, T, h] each
        attended = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(B, T, -1))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def rotate(x, cos, sin):
    """x [B, H, T, h], the two halves of h as pairs; cos and sin [T, h / 2]."""
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


def rotations(events, A, head_width):
    """cos and sin [T, h / 2]: the A tokens of an event have the same place."""
    frequency = ROPE_BASE ** (-torch.arange(0, head_width, 2) / head_width)
    angle = torch.arange(events).repeat_interleave(A)[:, None] * frequency
    return angle.cos(), angle.sin()


class FlatTransformer(nn.Module):
    """Tokens in, the sum of the losses of all attributes out. sizes: of each attribute's block of the vocabulary."""

    def __init__(self, sizes, events, width, layers, heads, head_width, mlp_width):
        super().__init__()
        A = len(sizes)
        self.embedding = nn.Embedding(sum(sizes), width)  # all tables after each other: one lookup
        self.attribute_embedding = nn.Parameter(0.02 * torch.randn(A, width))
        self.blocks = nn.ModuleList(Block(width, heads, head_width, mlp_width) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.heads = nn.ModuleList(nn.Linear(width, size, bias=False) for size in sizes)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("offsets", torch.tensor([0, *sizes[:-1]]).cumsum(0), persistent=False)
        cos, sin = rotations(events, A, head_width)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, batch, head):
        """batch [B, N + 1, A], of which N events are read; the first `head` events are given, and no loss is theirs."""
        B, N, A = batch.shape[0], batch.shape[1] - 1, batch.shape[2]
        x = (self.embedding(batch[:, :-1] + self.offsets) + self.attribute_embedding).flatten(1, 2)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        hidden = self.norm(x).view(B, N, A, -1)
        loss = 0.0
        for attribute, to_logits in enumerate(self.heads):
            # The first attribute of the next event is predicted by the last token of this one, the others by the one before.
            known = hidden[:, head - 1 :, -1] if attribute == 0 else hidden[:, head:, attribute - 1]
            wanted = batch[:, head:, 0] if attribute == 0 else batch[:, head:-1, attribute]
            logits = to_logits(known).float()
            loss = loss + F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum")
        return loss


class Trainer:
    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        torch.manual_seed(job["seed"])
        torch.set_float32_matmul_precision("high")  # on a GPU TF32, as in XLA
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.steps, self.head, self.half = job["steps"], job["head"], job["dtype"] == "bfloat16"
        sizes = {name: job[name] for name in ("events", "width", "layers", "heads", "head_width", "mlp_width")}
        self.model = FlatTransformer(job["vocab_sizes"], **sizes).to(self.device)
        # The same random notes as ours.
        rows, N, A = job["batch"], job["events"], len(job["vocab_sizes"])
        events = np.random.default_rng(job["seed"]).integers(job["note"], job["vocab_sizes"], (rows, N + 1, A), np.int32)
        events[:, 0] = job["bos"]
        self.batch = torch.from_numpy(events).long().to(self.device)
        self.notes = rows * (N - self.head)
        matrices = [weight for name, weight in self.model.named_parameters() if weight.ndim > 1 and "embedding" not in name]
        others = [weight for name, weight in self.model.named_parameters() if weight.ndim < 2 or "embedding" in name]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
        self.loss = torch.compile(self.model, dynamic=False) if job["compiled"] else self.model
        start = time.perf_counter()
        self.step()
        self.about = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "devices": 1,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "tokens": self.notes * A + rows,  # of the last event, which is not read, the first attribute alone
            "notes": self.notes,
            "compile_seconds": time.perf_counter() - start if job["compiled"] else 0.0,
            "measures": (
                "train steps of the flat model with all heads in PyTorch, one by one on one full batch: causal "
                "scaled_dot_product_attention, autocast where it is bfloat16, clipping, fused AdamW at a constant learning rate"
            ),
            "versions": {"torch": torch.__version__},
        }

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            loss = self.loss(self.batch, self.head) / self.notes
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.item()  # waits for the device

    def run(self):
        seconds = []
        for _ in range(self.steps):
            start = time.perf_counter()
            self.step()
            seconds.append(time.perf_counter() - start)
        on_gpu = self.device == "cuda"
        return {"seconds": seconds, "peak_megabytes": torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_megabytes()}


if __name__ == "__main__":
    serve(Trainer)
