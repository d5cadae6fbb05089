"""SAGE: the as_kvhs transformer over NoteEvents.

Each argument is a whole run, on the embedded corpus unless data.corpus names another one:
  debug  a minute on any machine, for trying things out
  demo   three to nine minutes on two CPU cores
  base   12 layers x 512 on crops of 1,024 events, for an accelerator (the default)

  python -m launch.preprocess --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:demo --workdir=runs/demo
  python -m launch.train --config=configs/sage.py:base --workdir=runs/mqa --config.model.sharing=mqa
  python -m launch.preprocess --config=configs/sage.py:base --workdir=runs/mine --config.data.corpus=folder:my_midi

What each field means is told by the dataclass of its section, such as sage_jax.training.config.TrainConfig.
"""

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = ("debug", "demo", "base")


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "base"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/sage.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    config = base()
    if arg == "demo":
        config.update(demo())
    elif arg == "debug":
        config.update(debug())
    return config


def base() -> ConfigDict:
    """Every field, with its value for 12 layers x 512."""
    config = ConfigDict()
    config.tokenizer = dict(ticks_per_quarter=12, max_bar_step=3, max_bar_quarters=8, num_velocities=32)
    config.representation = dict(
        name="events", merges=0, within="bar", per_track=False, max_beats=256, steps_per_event=0.0
    )
    config.preprocess = dict(max_file_mb=8.0, max_seconds_per_file=60.0, max_events_per_file=200_000, max_memory_mb=4096)
    config.preprocess.update(workers=0, reader="direct", runner="local", beam_options="")
    config.data = dict(corpus="embedded", shards="", num_events=1024, transpose=(-5, 6), pack=False)
    config.model = dict(
        form="flat",
        ahead=0,
        pooling="sum",
        inner="mlp",
        inner_width=0,
        width=512,
        layers=12,
        heads=10,
        head_width=64,
        mlp_width=1536,
        sharing="as_kvhs",
        scope="mixed",
        heads_per_attribute=1,
        kv_heads=0,
        rope_base=10_000.0,
        dtype="bfloat16",
        query_block=64,
        attention="auto",
        recompute="attention",
    )
    config.optimizer = dict(
        learning_rate=6e-4,
        warmup_steps=1000,
        end_fraction=0.1,
        weight_decay=0.1,
        clip_norm=1.0,
        b1=0.9,
        b2=0.95,
    )
    config.train = dict(
        steps=50_000,
        batch_size=32,
        accumulate=1,
        eval_every=1000,
        eval_batches=50,
        log_every=50,
        checkpoint_every=1000,
        keep=2,
        seed=0,
        max_minutes=0.0,
        bad_steps="stop",
        spike=0.0,
        max_skipped=10,
        tensorboard=False,
    )
    config.parallel = "mesh"
    config.mesh = dict(data=0, fsdp=1, tensor=1)
    config.sampling = dict(temperature=1.0, top_k=0, top_p=0.98, min_p=0.0)
    config.takes = dict(num_samples=4, prompt_bars=4, new_bars=8, max_events=1024, seed=0, qpm=120.0, meter=(4, 4))
    return config


def demo() -> dict:
    """What a small model that learns on two CPU cores has of its own."""
    return dict(
        data=dict(num_events=128),
        model=dict(width=128, layers=4, head_width=16, mlp_width=384, dtype="float32", query_block=32, recompute="nothing"),
        optimizer=dict(learning_rate=4e-3, warmup_steps=50, clip_norm=5.0),
        train=dict(
            steps=1200, batch_size=4, eval_every=300, eval_batches=0, log_every=10, checkpoint_every=300, max_minutes=10.0
        ),
        sampling=dict(temperature=0.95, top_p=0.95),
    )


def debug() -> dict:
    """Everything tiny."""
    return dict(
        data=dict(num_events=16),
        model=dict(width=32, layers=2, head_width=4, mlp_width=64, dtype="float32"),
        optimizer=dict(learning_rate=3e-3, warmup_steps=2, b2=0.98),
        train=dict(steps=20, batch_size=4, eval_every=10, eval_batches=2, log_every=1, checkpoint_every=10),
        takes=dict(num_samples=2, new_bars=2, max_events=32),
    )
