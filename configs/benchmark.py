"""The benchmark of decoding and training: which systems, at which sizes.

  python -m launch.benchmark --config=configs/benchmark.py --output=runs/benchmark       decoding, most of an hour on two cores
  python -m launch.benchmark --config=configs/benchmark.py:forms --output=runs/forms     forms of the model, a quarter of it
  python -m launch.benchmark --config=configs/benchmark.py:training --output=runs/speed  train steps, half an hour
  python -m launch.benchmark --config=configs/benchmark.py:debug --output=runs/debug     some of everything, a minute or two
  python -m launch.benchmark --config=configs/benchmark.py:gpu --output=runs/gpu         for one accelerator, in bfloat16
  python -m launch.benchmark --config=configs/benchmark.py:gpu_training --output=runs/gt  train steps there

What each field means is told by sage_jax.benchmark.config.BenchmarkConfig. Peers need `bash launch/peers.sh` first; one that
is not there is reported as such.
"""

from ml_collections import ConfigDict

from sage_jax.errors import UserError

ARGUMENTS = ("cpu", "forms", "training", "gpu", "gpu_training", "debug")
FEW = ("mha", "mqa", "as_kvhs-all-1", "as_kvhs-own-1", "as_kvhs-mixed-1")
OURS = (*FEW, "gqa-5", "gqa-2", "as_kvhs-all-2", "as_kvhs-own-2")
MANY = ("mha", "mqa", "as_kvhs-all-4", "as_kvhs-own-4", "as_kvhs-mixed-4")
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
    config.rounds = 5
    config.events = 8
    config.seed = 0
    config.workdir = ""
    config.reference, config.featured = "mha", "as_kvhs-mixed-1"
    # A table for each: every system in it at each batch and context (tokens), in turn. By name: ml_collections sorts them.
    config.tables = dict(
        forms=dict(systems=(*FORMS, "hf-llama-static-compiled"), contexts=(1024, 4096), events=12),
        forms_batch=dict(systems=FORMS, batches=(8,), contexts=(1024, 4096)),
        main=dict(systems=OURS + PEERS, batches=(1, 8), contexts=(1024,)),
        long=dict(systems=OURS + LLAMAS, contexts=(4096,)),
        long_batch=dict(systems=FEW, batches=(8,), contexts=(4096,), events=4),
        thousand_events=dict(systems=("mha", "as_kvhs-own-1", "as_kvhs-mixed-1", "mmt"), contexts=(5120,)),
        longest=dict(systems=FEW, contexts=(8192,)),
        many_heads=dict(systems=MANY, batches=(1,), model=dict(heads=40, head_width=16)),
        demo=dict(systems=OURS, model=DEMO, contexts=(1024,), events=100),
        demo_batch=dict(systems=OURS, model=DEMO, batches=(8,), events=20),
        demo_long=dict(systems=OURS, model=DEMO, batches=(1, 8), contexts=(4096,), events=20),
    )
    # A plot for each: the field that grows (context is in events here), and what it grows through.
    config.growth = dict(
        systems=("mha", "as_kvhs-mixed-1"),
        context=(256, 1024, 2048, 8192),
        batch=(1, 4, 16, 64),
        width=(128, 256, 512, 1024),
        layers=(3, 6, 12, 24),
    )
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
    if arg == "forms":
        config.title = "Forms"
        config.tables = dict(forms=config.tables.forms, forms_batch=config.tables.forms_batch)
        config.growth = NO_GROWTH
        config.featured = "nested-mqa"
    if arg == "training":
        config.title = "Training"
        config.tables, config.growth = dict(), NO_GROWTH
        config.training = dict(
            demo=dict(systems=TRAINED, model={**DEMO, **SMALL_CROPS}, batches=(4,), events=(128,), steps=10),
            base=dict(systems=TRAINED, model=SMALL_CROPS, batches=(1,), events=(128,), steps=3),
        )
        config.scaling.devices = (1, 2, 4, 8)
    if arg == "gpu":
        config.title = "Accelerator"
        config.dtype = "bfloat16"
        config.tables.main.update(systems=FEW + LLAMAS, batches=(1, 8, 32, 64), contexts=(1024, 4096, 8192))
    if arg == "gpu_training":
        config.title = "TrainingOnGPU"
        config.dtype = "bfloat16"
        config.model.update(width=1024, head_width=128, mlp_width=3072)
        config.tables, config.growth = dict(), NO_GROWTH
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
