"""Writes a run's model as weights to publish: a safetensors file and model.json, which need no checkpoint library to read.

  python -m launch.export --workdir=runs/demo --output=weights/demo
  python -m launch.sample --model=weights/demo --prompt=song.mid

The checkpoint with the lowest validation loss is written, and the moving average of a run that has one. How the model samples
by default is what the run's config says, or --config.sampling.FIELD and --config.continuation.FIELD here.
"""

from absl import flags

from launch._main import config_file, run
from sage_jax.weights.export import export

CONFIG = config_file("configs/sampling.py", "Sampling settings that differ from the run's own.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the weights.", required=True)
BEST = flags.DEFINE_bool("best", True, "Whether to take the checkpoint with the lowest validation loss, else the newest.")
DTYPE = flags.DEFINE_string("dtype", "bfloat16", "Type of the numbers, and of what accelerators compute: bfloat16 or float32.")
COMPRESS = flags.DEFINE_bool("compress", False, "Whether to compress the file by xz: a third smaller, slower to read.")
SHARDS = flags.DEFINE_string("shards", None, "Folder of the training shards; default: the run's.")


def main() -> None:
    found = export(
        WORKDIR.value,
        OUTPUT.value,
        best=BEST.value,
        dtype=DTYPE.value,
        compress=COMPRESS.value,
        shards=SHARDS.value,
        settings=CONFIG.value.to_dict(),
    )
    for remark in found.remarks:
        print(remark)
    training = found.weights.training
    kind = "averaged " if training["averaged"] else ""
    loss = training["valid_nats_per_note"]
    score = "" if loss is None else f", {loss:.3f} nats per note on the validation split"
    print(f"{found.path}: {found.path.stat().st_size / 1e6:.1f} MB, {kind}weights of step {training['step']}{score}")


if __name__ == "__main__":
    run(main)
