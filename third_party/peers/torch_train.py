"""A train step of the flat model with multi-head attention in PyTorch, eager or (job["compiled"]) through torch.compile.

Written from the papers that our model follows: RMSNorm (arXiv 1910.07467), SwiGLU (arXiv 2002.05202), rotary positions over
events (arXiv 2104.09864); an embedding table and an output head for each attribute. Shapes: B batch, N events, A attributes,
T = N A tokens, D embed_dim, H heads, h head_dim.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from sage_jax.benchmark.worker import peak_megabytes, serve

ROPE_THETA = 10_000.0
CLIP_NORM = 1.0


class Block(nn.Module):
    """Attention and a gated MLP. Queries, keys and values are one matrix product; so are the gate and the up projection."""

    def __init__(self, embed_dim, num_heads, head_dim, mlp_dim):
        super().__init__()
        self.head_dim = head_dim
        self.attention_norm, self.mlp_norm = nn.RMSNorm(embed_dim, eps=1e-6), nn.RMSNorm(embed_dim, eps=1e-6)
        self.query_key_value = nn.Linear(embed_dim, 3 * num_heads * head_dim, bias=False)
        self.output = nn.Linear(num_heads * head_dim, embed_dim, bias=False)
        self.gate_up = nn.Linear(embed_dim, 2 * mlp_dim, bias=False)
        self.down = nn.Linear(mlp_dim, embed_dim, bias=False)

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        mixed = self.query_key_value(self.attention_norm(x)).view(B, T, 3, -1, self.head_dim)
        q, k, v = mixed.permute(2, 0, 3, 1, 4)  # [B, H, T, h] each
        attended = F.scaled_dot_product_attention(apply_rope(q, cos, sin), apply_rope(k, cos, sin), v, is_causal=True)
        x = x + self.output(attended.transpose(1, 2).reshape(B, T, -1))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def apply_rope(x, cos, sin):
    """Rotates x [B, H, T, h]: channel i of the first half of h pairs with channel i of the second. cos, sin: [T, h / 2]."""
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1).to(x.dtype)


def rope_frequencies(events, A, head_dim):
    """cos and sin [T, h / 2]. The A tokens of an event share a position."""
    frequency = ROPE_THETA ** (-torch.arange(0, head_dim, 2) / head_dim)
    angle = torch.arange(events).repeat_interleave(A)[:, None] * frequency
    return angle.cos(), angle.sin()


class FlatTransformer(nn.Module):
    """Tokens in, the sum of the losses of all attributes out. vocab_sizes: of each attribute's block of the vocabulary."""

    def __init__(self, vocab_sizes, events, embed_dim, num_layers, num_heads, head_dim, mlp_dim):
        super().__init__()
        A = len(vocab_sizes)
        self.embedding = nn.Embedding(sum(vocab_sizes), embed_dim)  # the tables of all attributes: one lookup
        self.attribute_embedding = nn.Parameter(0.02 * torch.randn(A, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, head_dim, mlp_dim) for _ in range(num_layers))
        self.norm = nn.RMSNorm(embed_dim, eps=1e-6)
        self.heads = nn.ModuleList(nn.Linear(embed_dim, size, bias=False) for size in vocab_sizes)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("offsets", torch.tensor([0, *vocab_sizes[:-1]]).cumsum(0), persistent=False)
        cos, sin = rope_frequencies(events, A, head_dim)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, batch, head):
        """The loss on batch [B, N + 1, A]: N events in, and a target for every event except the first `head`."""
        B, N, A = batch.shape[0], batch.shape[1] - 1, batch.shape[2]
        x = (self.embedding(batch[:, :-1] + self.offsets) + self.attribute_embedding).flatten(1, 2)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        hidden = self.norm(x).view(B, N, A, -1)
        loss = 0.0
        for attribute, to_logits in enumerate(self.heads):
            # The last token of an event predicts the next event's first attribute, any other token the next attribute.
            inputs = hidden[:, head - 1 :, -1] if attribute == 0 else hidden[:, head:, attribute - 1]
            targets = batch[:, head:, 0] if attribute == 0 else batch[:, head:-1, attribute]
            logits = to_logits(inputs).float()
            loss = loss + F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        return loss


class Trainer:
    def __init__(self, job):
        torch.set_num_threads(job["threads"])
        torch.manual_seed(job["seed"])
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as in XLA
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.steps, self.head, self.bfloat16 = job["steps"], job["head"], job["dtype"] == "bfloat16"
        sizes = {name: job[name] for name in ("events", "embed_dim", "num_layers", "num_heads", "head_dim", "mlp_dim")}
        self.model = FlatTransformer(job["vocab_sizes"], **sizes).to(self.device)
        # The same random notes as in sage_jax.benchmark.train.
        rows, N, A = job["batch"], job["events"], len(job["vocab_sizes"])
        rng = np.random.default_rng(job["seed"])
        events = rng.integers(job["first_note_ids"], job["vocab_sizes"], (rows, N + 1, A), np.int32)
        events[:, 0] = job["bos"]
        self.batch = torch.from_numpy(events).long().to(self.device)
        self.notes = rows * (N - self.head)
        matrices = [weight for name, weight in self.model.named_parameters() if weight.ndim > 1 and "embedding" not in name]
        others = [weight for name, weight in self.model.named_parameters() if weight.ndim < 2 or "embedding" in name]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=6e-4, betas=(0.9, 0.95), fused=True)
        self.compute_loss = torch.compile(self.model, dynamic=False) if job["compiled"] else self.model
        start = time.perf_counter()
        self.step()
        self.metadata = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "devices": 1,
            "device": torch.cuda.get_device_name() if self.device == "cuda" else "cpu",
            "tokens": self.notes * A + rows,  # the last event is a target only in its first attribute
            "notes": self.notes,
            "compile_seconds": time.perf_counter() - start if job["compiled"] else 0.0,
            "measures": (
                "train steps of the flat model with multi-head attention in PyTorch, one by one on one full batch: causal "
                "scaled_dot_product_attention, autocast for bfloat16, clipping, fused AdamW at a constant learning rate"
            ),
            "versions": {"torch": torch.__version__},
        }

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bfloat16):
            loss = self.compute_loss(self.batch, self.head) / self.notes
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
