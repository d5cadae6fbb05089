"""The benchmark of decoding and training: which systems, at which sizes.

  python -m launch.benchmark --config=configs/benchmark.py:NAME --output=runs/NAME

NAME, and how long it takes where nothing else runs (estimates from earlier runs; most of a short cell is compilation):

  cpu            decoding at 12 x 512, 10 minutes on two cores (the default)
  small          decoding in the demo's size, with enough notes for a p99; 5 minutes on two cores
  batch          decoding of eight rows at 12 x 512, 20 minutes on two cores
  training       train steps of the demo's model, 8 minutes on two cores
  training_base  those of 12 x 512, 20 minutes on two cores
  sharing        decoding by ways to share key-value heads, 10 minutes on two cores
  forms          decoding by forms of the model, half an hour on two cores
  peers          decoding beside every peer, half an hour on two cores
  long           decoding at 4,095 and 8,190 tokens, three quarters of an hour on two cores
  growth         points of cost against context, batch, width and layers, no ratios; 20 minutes on two cores
  scaling        what train steps would send between devices: counted and not timed, so that other work does no harm
  gpu            decoding in bfloat16 on one accelerator of 80 GB, 20 minutes; not run yet
  gpu_training   train steps there
  debug          some of everything, a minute or two

What each field means is documented in sage_jax.benchmark.config.BenchmarkConfig. Peers need `bash launch/peers.sh` first; one
that is not there is reported as such.
"""

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = (
    "cpu", "small", "batch", "training", "training_base", "sharing", "forms", "peers", "long", "growth", "scaling", "gpu",
    "gpu_training", "debug",
)  # fmt: skip
FEW = ("mha", "mqa", "as_kvhs-all-1", "as_kvhs-own-1", "as_kvhs-mixed-1")
LLAMAS = ("hf-llama-dynamic", "hf-llama-static", "hf-llama-static-compiled", "x-transformers")
FORMS = ("mha", "mqa", "nested-mqa", "nested-mha", "nested-as_kvhs-mixed-1", "pooled-mqa", "compound-mqa", "delay-mqa")
DEMO = dict(width=128, layers=4, head_width=16, mlp_width=384)
PEERS = (*LLAMAS, "mmt", "remi-gpt2", "midigpt")
TRAINED = ("mha", "mqa", "as_kvhs-own-1", "as_kvhs-mixed-1", "nested-mqa", "torch-flat", "torch-flat-compiled")
NO_GROWTH = dict(systems=(), context=(), batch=(), width=(), layers=())
SMALL_CROPS = dict(recompute="nothing", query_block=32)  # as configs/sage.py:demo trains, up to 1.1 times as fast as 64


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "cpu"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/benchmark.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    config = ConfigDict()
    config.title = "Decoding"
    config.model = dict(width=512, layers=12, heads=10, head_width=64, mlp_width=1536)
    config.dtype = "float32"
    config.rounds = 21  # the first is not counted, and a ratio needs twenty
    config.events = 10
    config.seed = 0
    config.time_limit = 900.0  # seconds; a worker that needs longer for an answer is killed
    config.workdir = ""
    config.reference, config.featured = "mha", "as_kvhs-mixed-1"
    # A table for each: every system in it at each batch and context (tokens), in turn. By name: ml_collections sorts them.
    config.tables = dict(
        main=dict(systems=("mha", "mqa", "as_kvhs-mixed-1", "nested-mqa", "hf-llama-static-compiled"), contexts=(1024,)),
    )
    # A plot for each: the field that grows (context is in events here), and what it grows through.
    config.growth = NO_GROWTH
    # A table for each, of train steps: every system in it at each batch (rows) and crop (events), in turn.
    config.training = dict()
    config.corpus, config.shards = "embedded", ""
    # Counted, not timed. Heads that eight devices can share out, too, in all groups of as_kvhs; of the width of the others'.
    config.scaling = dict(
        systems=("mha", "as_kvhs-mixed-1"),
        devices=(),
        axes=("data", "fsdp", "tensor"),
        model=dict(layers=4, heads=80, head_width=8),
        events=128,
        batch=8,
        rows=1,
    )
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
        config.tables = dict(demo=dict(systems=("mha", "mqa", "as_kvhs-mixed-1", "nested-mqa"), model=DEMO, contexts=(1024,), events=50))
    if arg == "batch":
        config.title = "Batch"
        config.tables = dict(batch=dict(systems=("mha", "mqa", "as_kvhs-mixed-1", "nested-mqa"), batches=(8,), contexts=(1024,)))
    if arg == "sharing":
        config.title = "Sharing"
        config.tables = dict(sharing=dict(systems=FEW, contexts=(1024,)))
    if arg == "forms":
        config.title = "Forms"
        config.tables = dict(forms=dict(systems=FORMS, contexts=(1024, 4096)))
        config.featured = "nested-mqa"
    if arg == "peers":
        config.title = "Peers"
        config.tables = dict(peers=dict(systems=("mha", "as_kvhs-mixed-1", *PEERS), contexts=(1024,)))
    if arg == "long":
        config.title = "Long"
        config.tables = dict(
            long=dict(systems=(*FEW, "nested-mqa", "hf-llama-static-compiled"), contexts=(4096,)),
            longest=dict(systems=FEW, contexts=(8192,)),
        )
    if arg == "growth":
        config.title = "Growth"
        config.tables, config.rounds = dict(), 5
        config.growth = dict(
            systems=("mha", "as_kvhs-mixed-1"),
            context=(256, 1024, 2048, 8192),
            batch=(1, 4, 16, 64),
            width=(128, 256, 512, 1024),
            layers=(3, 6, 12, 24),
        )
    if arg == "scaling":
        config.title = "Scaling"
        config.tables = dict()
        config.scaling.devices = (1, 2, 4, 8)
    if arg == "gpu":
        config.title = "Accelerator"
        config.dtype = "bfloat16"
        systems = ("mha", "mqa", "as_kvhs-mixed-1", "nested-mqa", "hf-llama-static-compiled")
        # All systems of a table are in the device's memory at once.
        config.tables = dict(
            gpu=dict(systems=systems, contexts=(1024,), events=50),
            gpu_batch=dict(systems=systems, batches=(64,), contexts=(1024,)),
        )
    if arg == "gpu_training":
        config.title = "TrainingOnGPU"
        config.dtype = "bfloat16"
        config.model.update(width=1024, head_width=128, mlp_width=3072)
        config.tables = dict()
        usual = dict(events=(2048,), steps=10)
        keeping = lambda kept: dict(model=dict(recompute=kept), **usual)
        config.training = dict(
            wide=dict(systems=TRAINED, batches=(4,), **keeping("nothing")),
            wide_few=dict(systems=("mha",), batches=(2,), **keeping("nothing")),
            wide_many=dict(systems=("mha", "nested-mqa"), batches=(16,), **keeping("nothing")),
            wide_products=dict(systems=("mha",), batches=(8,), **keeping("products")),
            wide_layers=dict(systems=("mha",), batches=(8,), **keeping("layers")),
        )
    if arg == "debug":
        config.title = "Debug"
        config.model = dict(width=32, layers=1, heads=10, head_width=4, mlp_width=48)
        config.rounds, config.events = 2, 2
        config.tables = dict(main=dict(systems=("mha", "as_kvhs-mixed-1", "nested-mqa", "mmt"), contexts=(80,)))
        config.growth = dict(systems=("as_kvhs-mixed-1",), context=(16, 32), batch=(), width=(), layers=())
        config.training = dict(tiny=dict(systems=("mha", "torch-flat"), batches=(2,), events=(8,), steps=2))
        config.scaling.update(systems=("as_kvhs-mixed-1",), devices=(2,), axes=("fsdp",), events=8, batch=2)
        config.scaling.model = dict()
    return config
