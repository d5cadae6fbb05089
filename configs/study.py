"""The study: which systems train on which corpora, with how many seeds, and what they are evaluated on.

  debug      minutes, to check that it runs; its numbers mean nothing
  chorales   small models that learn all they can of Bach's chorales, for two CPU cores
  converged  about 20 million parameters that learn all they can, for one H100, a quarter of an hour at a time
  cpu        small models that train briefly, for two CPU cores
  demo       the demo's model, flat and nested, for two CPU cores: fifty times the events of cpu
  middle     about 20 million parameters that train briefly, for a quarter of an hour of one H200
  full       12 layers x 512 on crops of 1,024 events, for an accelerator (the default)

  python -m launch.study --config=configs/study.py:debug --workdir=runs/study
  python -m launch.study --config=configs/study.py:cpu --workdir=runs/study \
      --config.corpora.multitrack=folder:MULTITRACK --config.corpora.piano=folder:PIANO

A corpus is the embedded one by default; shards:FOLDER is a folder that launch.preprocess made.
Fields are documented in sage_jax.study.config.StudyConfig.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import evaluation, sage
from sage_jax import defaults
from sage_jax.errors import UserError

ARGUMENTS = ("debug", "chorales", "converged", "cpu", "demo", "middle", "full")
SHARINGS = (
    "mha", "gqa-5", "gqa-2", "mqa",
    *(f"as_kvhs-{scope}-{heads}" for scope in ("all", "own", "mixed") for heads in (1, 2, 4)),
)  # fmt: skip
NESTED = ("nested-mqa", "nested-gru", "nested-attention", "nested2-mqa")
FORMS = ("mha", "remi", "pooled", "octuple", "compound", "mmt", "delay", *NESTED)
MERGES = ("remi", *(f"bpe{merges}" for merges in (500, 1000, 2000, 5000, 10_000, 20_000)))
# One system per family, for the learning rate search.
FAMILIES = ("mha", "remi", "pooled", "octuple", "compound", "mmt", "delay", "nested-mqa")
# The same for the models that train to their plateau, and the forms that they have.
PLATEAU_FAMILIES = ("mha", "remi", "pooled", "compound", "mmt", "nested2-mqa")
PLATEAU_FORMS = (*PLATEAU_FAMILIES, "nested2-as_kvhs-own-1")


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of one of ARGUMENTS."""
    arg = arg or "full"
    if arg not in ARGUMENTS:
        raise UserError(f"configs/study.py has no argument {arg!r}; choose one of {', '.join(ARGUMENTS)}")
    config = _dynamic(ConfigDict())
    config.title = arg
    config.corpora = dict(multitrack="embedded", piano="embedded")
    config.run = _dynamic(sage.get_config("base"))
    del config.run.continuation, config.run.sampling, config.run.partitioner
    # The fewest heads that every attribute scope can divide among four KV heads per attribute.
    config.run.model.update(num_heads=40, head_dim=16)
    config.run.train.update(steps=5000, eval_batches=50, eval_every=5000, checkpoint_every=1000)
    config.learning_rates = (3e-4, 6e-4, 1.2e-3)
    config.lr_search_corpus = "multitrack"
    config.lr_search_systems, config.lr_search_steps = FAMILIES, 0
    main, both = ("multitrack",), ("multitrack", "piano")
    nested = tuple(f"nested2-{sharing}" for sharing in SHARINGS)
    tables: dict[str, Any] = dict(
        forms=dict(systems=FORMS, train_on=main, seeds=3),
        sharing=dict(systems=SHARINGS + nested, train_on=main, seeds=3),
        equal_parameters=dict(systems=SHARINGS + nested, train_on=main, seeds=3, equal_parameters=True),
        merges=dict(systems=MERGES, train_on=both, seeds=2),
        other_music=dict(systems=("mha", "as_kvhs-mixed-1", "nested2-mqa"), train_on=both, test_on=both, seeds=3),
    )
    config.tables = tables
    config.evaluation = _dynamic(evaluation.get_config("standard"))
    config.evaluation.update(samples=1, memorization=False, num_midi_examples=0)
    config.speed_benchmark = dict(reference="mha", context=1024, batch=1, events=40, rounds=21)
    config.keep_checkpoints = False
    config.control_seeds = 0
    if arg == "chorales":
        config.corpora = dict(chorales="music21:bach")
        config.lr_search_corpus = "chorales"
        config.run.data.update(context_events=64, transpose=(0, 0), max_pieces=60)
        config.run.model.update(embed_dim=80, num_layers=2, num_heads=10, head_dim=8, mlp_dim=240, dtype="float32")
        config.run.model.update(remat="none", query_chunk_size=32)
        # A constant rate and averaged weights: the loss has no end of a schedule to wait for.
        config.run.optimizer.update(warmup_steps=100, final_lr_fraction=1.0, clip_norm=1.0)
        config.run.train.update(steps=12_000, batch_size=4, ema_decay=0.995, patience=3, eval_batches=0, log_every=150)
        config.run.train.update(eval_every=150, checkpoint_every=3000)
        config.learning_rates = (4e-3, 8e-3, 1.6e-2)
        config.lr_search_systems = PLATEAU_FAMILIES
        one = ("chorales",)
        config.tables = dict(
            sharing=dict(systems=("mha", "mqa", "as_kvhs-own-1", "as_kvhs-mixed-1"), train_on=one, seeds=3),
            forms=dict(systems=PLATEAU_FORMS, train_on=one, seeds=3),
            merges=dict(systems=("mha", "remi", "bpe500"), train_on=one, seeds=3),
        )
        config.control_seeds = 3
        config.evaluation.update(prompts=40, max_bars=8, batch_size=20, max_events=256, use_best_checkpoint=True)
    if arg == "converged":
        config.corpora = dict(multitrack="embedded", piano="embedded")
        config.run.data.context_events = 1024
        config.run.model.update(embed_dim=384, num_layers=10, num_heads=40, head_dim=10, mlp_dim=1152)
        config.run.model.update(remat="none", dropout_residual=0.1, dropout_embedding=0.1)
        # Changes of velocity and tempo are left out, as the tokens of mmt have neither.
        config.run.augment.update(drop_instruments=0.1, exchange_programs=0.1, cut_start=0.5, keep_ranges=True)
        config.run.optimizer.update(warmup_steps=100, clip_norm=1.0, final_lr_fraction=1.0)
        config.run.train.update(steps=6000, batch_size=32, ema_decay=0.999, patience=4, eval_batches=20, log_every=50)
        config.run.train.update(eval_every=250, checkpoint_every=500)
        config.learning_rates = (5e-4, 1e-3, 2e-3)
        config.lr_search_systems = PLATEAU_FAMILIES
        config.lr_search_steps = 3000
        scopes = tuple(f"as_kvhs-{scope}-{heads}" for scope in ("own", "mixed", "all") for heads in (1, 4))
        config.tables = dict(
            sharing=dict(systems=("mha", "gqa-2", "mqa", *scopes), train_on=main, seeds=3),
            forms=dict(systems=PLATEAU_FORMS, train_on=main, seeds=3),
            merges=dict(systems=("remi", "bpe2000"), train_on=main, seeds=3),
            piano=dict(systems=("remi", "bpe2000", "bpe20000"), train_on=("piano",), seeds=3),
        )
        config.control_seeds = 3
        config.evaluation.update(prompts=200, max_bars=8, batch_size=100, max_events=512, use_best_checkpoint=True)
    if arg == "cpu":
        config.run.data.context_events = 24
        config.run.model.update(embed_dim=128, num_layers=2, head_dim=8, mlp_dim=384, dtype="float32", remat="none")
        config.run.optimizer.update(warmup_steps=50, clip_norm=5.0)
        # At equal training events, many small batches reach a lower loss than few large ones.
        config.run.train.update(steps=400, batch_size=4, log_every=50, eval_batches=64)
        config.run.train.update(checkpoint_every=10_000, eval_every=10_000)
        config.learning_rates = (2e-3, 4e-3, 8e-3)
        # Ten heads halve the time of the flat model, which takes the most.
        few_heads = dict(num_heads=10, head_dim=16)
        longer = dict(systems=("mha", "nested-mqa", "nested2-mqa"), train_on=main, seeds=3, steps=2000, model=few_heads)
        config.tables = {**tables, "longer": longer}
        config.evaluation.update(prompts=16, max_bars=4, batch_size=16, max_events=64, likelihood_pieces=5)
    if arg == "demo":
        config.run.update(defaults.demo())
        del config.run.sampling
        config.run.model.num_heads = 10
        config.run.train.update(steps=2000, batch_size=8, log_every=50, eval_batches=100, max_minutes=0.0)
        config.run.train.update(checkpoint_every=500, eval_every=2000)
        config.learning_rates = (2e-3, 4e-3, 8e-3)
        config.lr_search_systems, config.lr_search_steps = ("mha", "nested-mqa"), 500
        config.tables = dict(forms=dict(systems=("mha", "nested-mqa", "nested2-mqa"), train_on=main, seeds=3))
        config.evaluation.update(prompts=40, max_bars=8, batch_size=20, max_events=256, likelihood_pieces=20)
    if arg == "middle":
        config.corpora = dict(multitrack="embedded")
        config.run.data.context_events = 512
        config.run.model.update(embed_dim=384, num_layers=10, num_heads=10, head_dim=40, mlp_dim=1152)
        config.run.model.update(attention_impl="flash", remat="none")
        config.run.optimizer.update(warmup_steps=50)
        config.run.train.update(steps=600, batch_size=16, eval_batches=20, eval_every=10_000, checkpoint_every=10_000)
        config.learning_rates = (1e-3, 2e-3, 4e-3)
        config.lr_search_systems, config.lr_search_steps = ("mha", "nested-mqa", "pooled"), 120
        config.tables = dict(
            forms=dict(systems=("mha", "nested-mqa", "nested2-mqa", "pooled"), train_on=main, seeds=3),
            sharing=dict(systems=("mha", "mqa", "as_kvhs-mixed-1"), train_on=main, seeds=3),
        )
        config.evaluation.update(prompts=40, max_bars=8, batch_size=40, max_events=256, likelihood_pieces=40)
    if arg == "debug":
        config.run.update(defaults.debug())
        config.run.model.update(num_heads=40, head_dim=2)
        config.run.data.context_events = 16
        config.run.train.update(steps=4, eval_every=4, checkpoint_every=4)
        config.learning_rates = (3e-3,)
        config.lr_search_systems = ("mha", "remi", "nested-mqa")
        config.tables = dict(
            forms=dict(systems=("mha", "nested2-mqa"), train_on=main, seeds=2),
            sharing=dict(systems=("mha", "mqa", "as_kvhs-mixed-4"), train_on=main, seeds=2),
            equal_parameters=dict(systems=("mha", "mqa"), train_on=main, seeds=1, equal_parameters=True),
            merges=dict(systems=("remi", "bpe500"), train_on=both, seeds=1),
            other_music=dict(systems=("mha",), train_on=both, test_on=both, seeds=1),
        )
        config.evaluation.update(evaluation.get_config("debug"))
        config.evaluation.update(samples=1, memorization=False, num_midi_examples=0)
        config.speed_benchmark.update(context=160, events=4, rounds=2)
    return config


def _dynamic(config: ConfigDict) -> Any:
    """The config as Any: a type checker does not know its fields."""
    return config
