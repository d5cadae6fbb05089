"""Where the peers decode: on a GPU if PyTorch sees one; and a clock that waits for it."""

import time

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def prepare(job):
    """What every adapter sets before it builds its model."""
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in XLA


def now():
    """Seconds, when the device has done all that it was given: a kernel's launch returns before the kernel ends."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def name():
    return torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"


def memory():
    """The most memory so far, in a run's field, where the device counts it."""
    return {"peak_megabytes": torch.cuda.max_memory_allocated() / 1e6} if DEVICE == "cuda" else {}
