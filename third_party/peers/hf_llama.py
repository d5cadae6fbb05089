"""Hugging Face's Llama with random weights, 5 greedy tokens per note. job["cache"]: dynamic, static or static-compiled."""

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
    """LlamaConfig without the check that the heads divide the width; the model uses head_dim."""

    def validate_architecture(self):
        pass


class Llama:
    def __init__(self, job):
        device.prepare(job)
        self.events = job["events"]
        self.context = TOKENS_PER_NOTE * job["context_events"]
        self.config = Config(
            vocab_size=sum(job["vocab_sizes"]),
            hidden_size=job["embed_dim"],
            intermediate_size=job["mlp_dim"],
            num_hidden_layers=job["num_layers"],
            num_attention_heads=job["num_heads"],
            num_key_value_heads=job["num_kv_heads"],
            head_dim=job["head_dim"],
            max_position_embeddings=self.context,
            attn_implementation="sdpa",
        )
        dtype = getattr(torch, job["dtype"])
        self.model = LlamaForCausalLM(self.config).to(device.DEVICE, dtype).eval()
        prompt_length = self.context - TOKENS_PER_NOTE * self.events
        self.prompt = torch.randint(self.config.vocab_size, (job["batch"], prompt_length), device=device.DEVICE)
        self.static = job["cache"] != "dynamic"
        self.cache = StaticCache(self.config, max_cache_len=self.context) if self.static else None
        self.step = self.greedy
        compiled = job["cache"] == "static-compiled"
        if compiled:
            # CUDA graphs on a GPU, where kernel launches would otherwise dominate a step.
            mode = "reduce-overhead" if device.DEVICE == "cuda" else "default"
            self.step = torch.compile(self.greedy, dynamic=False, mode=mode)
        start = time.perf_counter()
        for _ in self.tokens():
            pass
        cache_size = 2 * job["num_layers"] * job["num_kv_heads"] * job["head_dim"] * self.context * job["batch"]
        self.metadata = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": cache_size * dtype.itemsize,
            "compile_seconds": time.perf_counter() - start if compiled else 0.0,
            "tokens_per_note": float(TOKENS_PER_NOTE),
            "device": device.name(),
            "measures": (
                "A loop of LlamaForCausalLM.forward with a cache: one greedy token per step over one joint vocabulary, five "
                "steps per note (the prefill draws the first token of the first note); no grammar, no sampling, no generate()."
            ),
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def greedy(self, tokens, cache):
        logits = self.model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def tokens(self):
        """Yields the tokens of a run, [B, 1] each."""
        if self.static:
            self.cache.reset()
        cache = self.cache if self.static else DynamicCache(config=self.config)
        token = self.greedy(self.prompt, cache)
        yield token
        for _ in range(TOKENS_PER_NOTE * self.events - 1):
            torch.compiler.cudagraph_mark_step_begin()
            token = self.step(token, cache).clone()  # a CUDA graph overwrites its output
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
