"""MidiTok's REMI+ tokens and a GPT-2 with random weights, decoded by Hugging Face's generate(), as its users do."""

import importlib.metadata
import itertools
import pathlib

import device
import torch
import transformers
from miditok import REMI, TokenizerConfig
from note_times import NoteClock
from transformers import GPT2Config, GPT2LMHeadModel, StoppingCriteria

from sage_jax.benchmark.worker import serve

MIDI = pathlib.Path(__file__).parents[1] / "midi"
TOKENS_PER_EVENT = 5  # gives the context the number of tokens that the other peers have


class Clock(StoppingCriteria):
    """Counts tokens; generate() calls it after each one. Never stops."""

    def __init__(self, clock):
        self.clock = clock

    def __call__(self, input_ids, scores, **kwargs):
        self.clock.token()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class RemiGPT2:
    def __init__(self, job):
        device.prepare(job)
        self.events = job["events"]
        context = TOKENS_PER_EVENT * job["context_events"]
        tokenizer = REMI(
            TokenizerConfig(
                use_programs=True, use_time_signatures=True, use_tempos=True, one_token_stream_for_programs=True
            )
        )
        pieces = [tokenizer(path).ids for path in sorted(MIDI.rglob("*.mid"))]
        stream = torch.tensor(list(itertools.chain.from_iterable(pieces)))
        pitches = [index for name, index in tokenizer.vocab.items() if name.startswith("Pitch")]
        tokens_per_note = len(stream) / torch.isin(stream, torch.tensor(pitches)).sum().item()
        self.tokens = round(self.events * tokens_per_note)
        length = context - self.tokens
        self.prompt = stream[: job["batch"] * length].view(job["batch"], length).to(device.DEVICE)
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=context,
            n_embd=job["embed_dim"],
            n_layer=job["num_layers"],
            n_head=job["num_heads"],
            n_inner=job["mlp_dim"],
            attn_implementation="sdpa",
            bos_token_id=tokenizer["BOS_None"],
            eos_token_id=tokenizer["EOS_None"],
            pad_token_id=tokenizer.pad_token_id,
        )
        dtype = getattr(torch, job["dtype"])
        self.model = GPT2LMHeadModel(config).to(device.DEVICE, dtype).eval()
        self.run()
        self.metadata = {
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "cache_bytes": 2 * job["num_layers"] * job["embed_dim"] * context * job["batch"] * dtype.itemsize,
            "compile_seconds": 0.0,
            "tokens_per_note": tokens_per_note,
            "device": device.name(),
            "measures": (
                "generate() with its dynamic cache, greedy, after a prompt of real music as REMI+ tokens; a note is the mean "
                "number of tokens per note in the embedded corpus, with bars, positions and tempos (the prefill draws the "
                "first token); no grammar, no decoding of tokens to notes."
            ),
            "versions": {
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "miditok": importlib.metadata.version("miditok"),
            },
        }

    def run(self):
        clock = NoteClock(self.events, self.tokens)
        self.model.generate(
            self.prompt,
            attention_mask=torch.ones_like(self.prompt),
            do_sample=False,
            max_new_tokens=self.tokens,
            min_new_tokens=self.tokens,
            stopping_criteria=[Clock(clock)],
        )
        return clock.result()


if __name__ == "__main__":
    serve(RemiGPT2)
