"""Hugging Face's Llama with random weights, 5 greedy tokens a note. job["cache"]: dynamic, static or static-compiled."""

import sys
import time

import device
import torch
import transformers
from note_times import time_tokens
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, StaticCache

from sage_jax.benchmark.worker import serve

TOKENS_PER_NOTE = 5


class Config(LlamaConfig):
    """Without the demand that the heads divide the width: the model itself goes by head_dim."""

    def validate_architecture(self):
        pass


class Llama:
    def __init__(self, job):
        device.prepare(job)
        self.events = job["events"]
        self.context = TOKENS_PER_NOTE * job["context_events"]
        self.config = Config(
            vocab_size=sum(job["vocab_sizes"]),
            hidden_size=job["width"],
            intermediate_size=job["mlp_width"],
            num_hidden_layers=job["layers"],
            num_attention_heads=job["heads"],
            num_key_value_heads=job["kv_heads"],
            head_dim=job["head_width"],
            max_position_embeddings=self.context,
            attn_implementation="sdpa",
        )
        dtype = getattr(torch, job["dtype"])
        self.model = LlamaForCausalLM(self.config).to(device.DEVICE, dtype).eval()
        prompt_length = self.context - TOKENS_PER_NOTE * self.events
        self.prompt = torch.randint(self.config.vocab_size, (job["batch"], prompt_length), device=device.DEVICE)
        self.static = job["cache"] != "dynamic"
        self.cache = StaticCache(self.config, max_cache_len=self.context) if self.static else None
        self.step = self.draw
        compiled = job["cache"] == "static-compiled"
        if compiled:
            # CUDA graphs on a GPU, where launches would otherwise take most of a step.
            mode = "reduce-overhead" if device.DEVICE == "cuda" else "default"
            self.step = torch.compile(self.draw, dynamic=False, mode=mode)
        start = time.perf_counter()
        for _ in self.tokens():
            pass
        numbers = 2 * job["layers"] * job["kv_heads"] * job["head_width"] * self.context * job["batch"]
        self.about = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": numbers * dtype.itemsize,
            "compile_seconds": time.perf_counter() - start if compiled else 0.0,
            "tokens_per_note": float(TOKENS_PER_NOTE),
            "device": device.name(),
            "measures": (
                "A loop of LlamaForCausalLM.forward with a cache: one greedy token a step over one joint vocabulary, five "
                "steps a note (the prefill draws the first token of the first note); no grammar, no sampling, no generate()."
            ),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def draw(self, tokens, cache):
        logits = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def tokens(self):
        """A whole run, token by token: [B, 1] each."""
        if self.static:
            self.cache.reset()
        cache = self.cache if self.static else DynamicCache(config=self.config)
        token = self.draw(self.prompt, cache)
        yield token
        for _ in range(TOKENS_PER_NOTE * self.events - 1):
            torch.compiler.cudagraph_mark_step_begin()
            token = self.step(token, cache).clone()  # the next step writes where this one's result is
            yield token

    def run(self):
        return time_tokens(self.tokens(), self.events, TOKENS_PER_NOTE * self.events)


def build(job):
    try:
        return Llama(job)
    except Exception as error:
        sys.exit(f"error: hf_llama with a {job['cache']} cache: {type(error).__name__}: {str(error).strip().splitlines()[0]}")


if __name__ == "__main__":
    serve(build)
