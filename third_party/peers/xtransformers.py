"""x-transformers' decoder with random weights and its own key-value cache, decoding 5 greedy tokens per note."""

import importlib.metadata

import device
import torch
from note_times import time_tokens
from x_transformers import Decoder, TransformerWrapper

from sage_jax.benchmark.worker import serve

TOKENS_PER_NOTE = 5


class XTransformer:
    def __init__(self, job):
        device.prepare(job)
        self.events = job["events"]
        context = TOKENS_PER_NOTE * job["context_events"]
        dtype = getattr(torch, job["dtype"])
        layers = Decoder(
            dim=job["embed_dim"],
            depth=job["num_layers"],
            heads=job["num_heads"],
            attn_dim_head=job["head_dim"],
            attn_kv_heads=job["num_kv_heads"],
            attn_flash=True,
            rotary_pos_emb=True,
            use_rmsnorm=True,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_mult=job["mlp_dim"] / job["embed_dim"],
        )
        vocabulary = sum(job["vocab_sizes"])
        self.model = TransformerWrapper(
            num_tokens=vocabulary,
            max_seq_len=context,
            attn_layers=layers,
            use_abs_pos_emb=False,
            input_not_include_cache=True,  # a step embeds only its new token
        )
        self.model = self.model.to(device.DEVICE, dtype).eval()
        length = context - TOKENS_PER_NOTE * self.events
        self.prompt = torch.randint(vocabulary, (job["batch"], length), device=device.DEVICE)
        for _ in self.tokens():
            pass
        cache_size = 2 * job["num_layers"] * job["num_kv_heads"] * job["head_dim"] * context * job["batch"]
        self.metadata = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": cache_size * dtype.itemsize,
            "compile_seconds": 0.0,
            "tokens_per_note": float(TOKENS_PER_NOTE),
            "device": device.name(),
            "measures": (
                "A loop of TransformerWrapper.forward with its cache: one greedy token per step over one joint vocabulary, "
                "five steps per note (the prefill draws the first token of the first note); no grammar, no sampling, no "
                "generate()."
            ),
            "versions": {"torch": torch.__version__, "x-transformers": importlib.metadata.version("x-transformers")},
        }

    @torch.inference_mode()
    def tokens(self):
        """Yields the tokens of a run, [B, 1] each."""
        token, cache = self.prompt, None
        for _ in range(TOKENS_PER_NOTE * self.events):
            hidden, cache = self.model(token, cache=cache, return_embeddings_and_intermediates=True)
            token = self.model.to_logits(hidden[:, -1:]).argmax(-1)
            yield token

    def run(self):
        return time_tokens(self.tokens(), self.events, TOKENS_PER_NOTE * self.events)


if __name__ == "__main__":
    serve(XTransformer)
