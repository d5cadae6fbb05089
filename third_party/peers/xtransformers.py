"""x-transformers' decoder with random weights and its own key-value cache, decoding 5 tokens a note greedily."""

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
            dim=job["width"],
            depth=job["layers"],
            heads=job["heads"],
            attn_dim_head=job["head_width"],
            attn_kv_heads=job["kv_heads"],
            attn_flash=True,
            rotary_pos_emb=True,
            use_rmsnorm=True,
            ff_glu=True,
            ff_swish=True,
            ff_no_bias=True,
            ff_mult=job["mlp_width"] / job["width"],
        )
        vocabulary = sum(job["vocab_sizes"])
        self.model = TransformerWrapper(
            num_tokens=vocabulary,
            max_seq_len=context,
            attn_layers=layers,
            use_abs_pos_emb=False,
            input_not_include_cache=True,  # a step embeds its new token only
        )
        self.model = self.model.to(device.DEVICE, dtype).eval()
        length = context - TOKENS_PER_NOTE * self.events
        self.prompt = torch.randint(vocabulary, (job["batch"], length), device=device.DEVICE)
        for _ in self.tokens():
            pass
        numbers = 2 * job["layers"] * job["kv_heads"] * job["head_width"] * context * job["batch"]
        self.about = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": numbers * dtype.itemsize,
            "compile_seconds": 0.0,
            "tokens_per_note": float(TOKENS_PER_NOTE),
            "device": device.name(),
            "measures": (
                "A loop of TransformerWrapper.forward with its cache: one greedy token a step over one joint vocabulary, five "
                "steps a note (the prefill draws the first token of the first note); no grammar, no sampling, no generate()."
            ),
            "versions": {"torch": torch.__version__, "x-transformers": importlib.metadata.version("x-transformers")},
        }

    @torch.inference_mode()
    def tokens(self):
        """A whole run, token by token: [B, 1] each."""
        token, cache = self.prompt, None
        for _ in range(TOKENS_PER_NOTE * self.events):
            hidden, cache = self.model(token, cache=cache, return_embeddings_and_intermediates=True)
            token = self.model.to_logits(hidden[:, -1:]).argmax(-1)
            yield token

    def run(self):
        return time_tokens(self.tokens(), self.events, TOKENS_PER_NOTE * self.events)


if __name__ == "__main__":
    serve(XTransformer)
