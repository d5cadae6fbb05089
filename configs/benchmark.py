"""The benchmark of decoding and training: which systems, at which sizes.

  python -m launch.benchmark --config=configs/benchmark.py:NAME --output=runs/NAME

NAME, and its time on an otherwise idle machine (estimates; most of a short run is compilation):

  cpu            decoding at 12 x 512, 10 minutes on two cores (the default)
  small          decoding at the demo's size, with enough notes for a p99; 5 minutes on two cores
  batch          decoding of eight rows at 12 x 512, 20 minutes on two cores
  training       train steps of the demo's model, 8 minutes on two cores
  training_base  train steps at 12 x 512, 20 minutes on two cores
  sharing        decoding with each KV sharing, 10 minutes on two cores
  forms          decoding with each architecture, half an hour on two cores
  peers          decoding with every peer, half an hour on two cores
  long           decoding at 4,095 and 8,190 tokens, three quarters of an hour on two cores
  growth         scaling curves over context, batch, embed_dim and num_layers, without ratios; 20 minutes on two cores
  scaling        communication of train steps between devices: counted, not timed, so other work does no harm
  live           live play in real time with sage-20m, on time or not; an hour and a quarter on two cores
  live_sharing   the same with other sharings, as docs/benchmark_method.md makes them; 20 minutes
  gpu            decoding in bfloat16 on one accelerator of 80 GB, one row and 64; 8 minutes with 16 cores; not run yet
  gpu_batches    the same with 8 and 256 rows
  gpu_training   train steps on such an accelerator
  debug          a little of everything, a minute or two

Fields are documented in sage_jax.benchmark.config.BenchmarkConfig. Peers need `bash launch/peers.sh` first; the report names
missing ones.
"""

from typing import Any

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = (
    "cpu", "small", "batch", "training", "training_base", "sharing", "forms", "peers", "long", "growth", "scaling", "live",
    "live_sharing", "gpu", "gpu_batches", "gpu_training", "debug",
)  # fmt: skip
FOUR = ("mha", "mqa", "as_kvhs-mixed-1", "nested-mqa")
SHARINGS = ("mha", "mqa", "as_kvhs-all-1", "as_kvhs-own-1", "as_kvhs-mixed-1")
LLAMAS = ("hf-llama-dynamic", "hf-llama-static", "hf-llama-static-compiled", "x-transformers")
FORMS = ("mha", "mqa", "nested-mqa", "nested-mha", "nested-as_kvhs-mixed-1", "pooled-mqa", "compound-mqa", "delay-mqa")
DEMO = dict(embed_dim=128, num_layers=4, head_dim=16, mlp_dim=384)
PEERS = (*LLAMAS, "mmt", "remi-gpt2", "midigpt")
PLAYED = "folder:third_party/midi/piano"
TRAINED = ("mha", "mqa", "as_kvhs-own-1", "as_kvhs-mixed-1", "nested-mqa", "torch-flat", "torch-flat-compiled")
NO_CURVES = dict(systems=(), context=(), batch=(), embed_dim=(), num_layers=())
SMALL_CROPS = dict(remat="none", query_chunk_size=32)  # as configs/sage.py:demo trains


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "cpu"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/benchmark.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    config: Any = ConfigDict()
    config.title = "Decoding"
    config.model = dict(embed_dim=512, num_layers=12, num_heads=10, head_dim=64, mlp_dim=1536)
    config.dtype = "float32"
    config.rounds = 21  # the first does not count, and a ratio needs 20
    config.events = 10
    config.seed = 0
    config.time_limit = 900.0  # seconds per answer of a worker
    config.workdir = ""
    config.reference, config.highlighted = "mha", "as_kvhs-mixed-1"
    # Each table measures its systems at every batch and context (in tokens).
    config.tables = dict(
        main=dict(systems=(*FOUR, "hf-llama-static-compiled"), contexts=(1024,)),
    )
    # Each curve measures the systems at the values of one field (here context is in events).
    config.scaling_curves = NO_CURVES
    # Each table measures train steps of its systems at every batch (rows) and crop (events).
    config.training = dict()
    config.corpus, config.shards = "embedded", ""
    # Counted, not timed. 80 heads: each group of as_kvhs can be sharded over eight devices.
    communication: dict[str, Any] = dict(
        systems=("mha", "as_kvhs-mixed-1"),
        devices=(),
        axes=("data", "fsdp", "tensor"),
        model=dict(num_layers=4, num_heads=80, head_dim=8),
        events=128,
        batch=8,
        rows=1,
    )
    config.communication = communication
    # Live play in real time, each table for every number of players.
    config.live = dict()
    if arg == "training":
        config.title = "Training"
        config.tables = dict()
        systems = ("mha", "as_kvhs-mixed-1", "nested-mqa", "torch-flat-compiled")
        few = dict(systems=systems, batches=(4,), events=(128,), steps=2)
        config.training = dict(demo=dict(model={**DEMO, **SMALL_CROPS}, **few))
    if arg == "training_base":
        config.title = "TrainingBase"
        config.tables = dict()
        config.training = dict(base=dict(systems=TRAINED, model=SMALL_CROPS, batches=(1,), events=(128,), steps=1))
    if arg == "small":
        config.title = "Small"
        config.tables = dict(demo=dict(systems=FOUR, model=DEMO, contexts=(1024,), events=50))
    if arg == "batch":
        config.title = "Batch"
        config.tables = dict(batch=dict(systems=FOUR, batches=(8,), contexts=(1024,)))
    if arg == "sharing":
        config.title = "Sharing"
        config.tables = dict(sharing=dict(systems=SHARINGS, contexts=(1024,)))
    if arg == "forms":
        config.title = "Forms"
        config.tables = dict(forms=dict(systems=FORMS, contexts=(1024, 4096)))
        config.highlighted = "nested-mqa"
    if arg == "peers":
        config.title = "Peers"
        config.tables = dict(peers=dict(systems=("mha", "as_kvhs-mixed-1", *PEERS), contexts=(1024,)))
    if arg == "long":
        config.title = "Long"
        config.tables = dict(
            long=dict(systems=(*SHARINGS, "nested-mqa", "hf-llama-static-compiled"), contexts=(4096,)),
            longest=dict(systems=SHARINGS, contexts=(8192,)),
        )
    if arg == "growth":
        config.title = "Growth"
        config.tables, config.rounds = dict(), 5
        config.scaling_curves = dict(
            systems=("mha", "as_kvhs-mixed-1"),
            context=(256, 1024, 2048, 8192),
            batch=(1, 4, 16, 64),
            embed_dim=(128, 256, 512, 1024),
            num_layers=(3, 6, 12, 24),
        )
    if arg == "scaling":
        config.title = "Scaling"
        config.tables = dict()
        config.communication["devices"] = (1, 2, 4, 8)
    if arg == "live":
        config.title = "Live"
        config.tables = dict()
        play = dict(corpus=PLAYED, seconds=120.0)
        ahead = {**play, "mode": "accompany"}
        config.live = dict(
            answer={**play, "mode": "answer"},
            trade={**play, "mode": "trade", "seconds": 60.0},
            bar={**ahead, "sessions": (1, 4, 8, 16)},
            bar_fast={**ahead, "qpm": 180.0, "seconds": 600.0},
            sixteenth={**ahead, "lead": 0.25, "seconds": 300.0},
            long={**ahead, "seconds": 1800.0},
        )
    if arg == "live_sharing":
        config.title = "LiveSharing"
        config.tables = dict()
        ahead = dict(corpus=PLAYED, seconds=60.0, mode="accompany")
        config.live = dict(
            flat={**ahead, "systems": ("runs/live/mha", "runs/live/as_kvhs"), "sessions": (1, 2, 4)},
            nested={**ahead, "systems": ("runs/live/nested2-mqa",), "sessions": (1, 8, 16)},
        )
    if arg in ("gpu", "gpu_batches"):
        config.title = "Accelerator"
        config.dtype = "bfloat16"
        # All systems of a table are in device memory at the same time. 50 events in each of 20 turns make a p99.
        systems = (*FOUR, "as_kvhs-own-1", "hf-llama-static-compiled")
        short, long = (dict(systems=systems, contexts=(tokens,), events=50) for tokens in (1024, 4096))
        config.tables = dict(gpu=dict(short, batches=(1, 64)), gpu_long=dict(long, batches=(1,)))
        if arg == "gpu_batches":
            config.tables = dict(gpu_batches=dict(short, batches=(8, 256)), gpu_long_batch=dict(long, batches=(64,)))
    if arg == "gpu_training":
        config.title = "TrainingOnGPU"
        config.dtype = "bfloat16"
        config.model.update(embed_dim=1024, head_dim=128, mlp_dim=3072)
        config.tables = dict()
        with_remat = lambda remat: dict(model=dict(remat=remat), events=(2048,), steps=10)
        config.training = dict(
            wide=dict(systems=TRAINED, batches=(4,), **with_remat("none")),
            wide_few=dict(systems=("mha",), batches=(2,), **with_remat("none")),
            wide_many=dict(systems=("mha", "nested-mqa"), batches=(16,), **with_remat("none")),
            wide_dots=dict(systems=("mha",), batches=(8,), **with_remat("dots")),
            wide_full=dict(systems=("mha",), batches=(8,), **with_remat("full")),
        )
    if arg == "debug":
        config.title = "Debug"
        config.model = dict(embed_dim=32, num_layers=1, num_heads=10, head_dim=4, mlp_dim=48)
        config.rounds, config.events = 2, 2
        config.tables = dict(main=dict(systems=("mha", "as_kvhs-mixed-1", "nested-mqa", "mmt"), contexts=(80,)))
        config.scaling_curves = dict(systems=("as_kvhs-mixed-1",), context=(16, 32), batch=(), embed_dim=(), num_layers=())
        config.training = dict(tiny=dict(systems=("mha", "torch-flat"), batches=(2,), events=(8,), steps=2))
        config.communication.update(systems=("as_kvhs-mixed-1",), devices=(2,), axes=("fsdp",), events=8, batch=2)
        config.communication["model"] = dict()
    return config
