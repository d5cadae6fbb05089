"""The device of the peers (a GPU if PyTorch sees one), and a clock that waits for it."""

import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def prepare(job):
    """Sets threads, seed and precision. Every adapter calls it before it builds its model."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in XLA


def now():
    """Seconds, after the device has finished its work (kernel launches are asynchronous)."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def name():
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"


def memory():
    """Peak memory of a GPU as a field of the run; nothing on a CPU."""
    return {"peak_megabytes": torch.cuda.max_memory_allocated() / 1e6} if DEVICE == "cuda" else {}
