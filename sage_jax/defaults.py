"""The default config in three sizes and the recipe of sage-20m, which configs/sage.py exposes on the command line."""

from typing import Any

SIZES = ("debug", "demo", "base")
PRESETS = (*SIZES, "sage-20m", "roles-small", "roles-20m")


def default_config(size: str = "base") -> dict[str, Any]:
    """All sections of a config as plain dicts: `base` with the overrides of `size`, one of PRESETS."""
    presets = {"base": dict, "demo": demo, "debug": debug}
    presets |= {"sage-20m": sage_20m, "roles-small": roles_small, "roles-20m": roles_20m}
    overrides = presets[size]()
    config = base()
    for section, fields in overrides.items():
        config[section].update(fields)
    return config


def base() -> dict[str, Any]:
    """Every field with its value for the 12-layer model of width 512."""
    config: dict[str, Any] = {}
    config["tokenizer"] = dict(
        ticks_per_quarter=12, max_bar_step=3, max_bar_quarters=8, num_velocities=32, tracks_per_program=1
    )
    config["representation"] = dict(
        name="events", merges=0, merge_scope="bar", per_track=False, max_beats=256, steps_per_event=0.0
    )
    config["preprocess"] = dict(
        max_file_mb=8.0,
        max_seconds_per_file=60.0,
        max_events_per_file=200_000,
        max_memory_mb=4096,
        workers=0,
        reader="direct",
        runner="local",
        beam_options="",
    )
    config["data"] = dict(corpus="embedded", shards="", context_events=1024, transpose=(-5, 6), pack=False, max_pieces=0)
    config["augment"] = dict(
        velocity_scale=(1.0, 1.0),
        velocity_offset=(0, 0),
        tempo_scale=(1.0, 1.0),
        drop_instruments=0.0,
        exchange_programs=0.0,
        cut_start=0.0,
        keep_ranges=False,
    )
    config["tasks"] = dict(plain=0.2, accompany=0.3, infill=0.2, scattered=0.1, live=0.2)
    config["model"] = dict(
        architecture="flat",
        lookahead=0,
        pooling="sum",
        event_decoder="mlp",
        event_decoder_dim=0,
        embed_dim=512,
        num_layers=12,
        num_heads=10,
        head_dim=64,
        mlp_dim=1536,
        kv_sharing="as_kvhs",
        attribute_scope="mixed",
        kv_heads_per_attribute=1,
        num_kv_heads=0,
        rope_theta=10_000.0,
        dtype="bfloat16",
        query_chunk_size=64,
        attention_impl="auto",
        decode_impl="auto",
        remat="scores",
        dropout_embedding=0.0,
        dropout_attention=0.0,
        dropout_residual=0.0,
    )
    config["optimizer"] = dict(
        learning_rate=6e-4,
        warmup_steps=1000,
        final_lr_fraction=0.1,
        weight_decay=0.1,
        clip_norm=1.0,
        b1=0.9,
        b2=0.95,
    )
    config["train"] = dict(
        steps=50_000,
        batch_size=32,
        grad_accum_steps=1,
        eval_every=1000,
        eval_batches=50,
        log_every=50,
        checkpoint_every=1000,
        max_to_keep=2,
        seed=0,
        max_minutes=0.0,
        on_bad_step="stop",
        loss_spike_factor=0.0,
        max_skipped=10,
        ema_decay=0.0,
        patience=0,
        init_from="",
        tensorboard=False,
    )
    config["partitioner"] = "mesh"
    config["mesh"] = dict(data=0, fsdp=1, tensor=1)
    config["sampling"] = dict(temperature=1.0, top_k=0, top_p=0.98, min_p=0.0)
    config["continuation"] = dict(
        num_samples=4, prompt_bars=4, num_bars=8, max_events=1024, seed=0, qpm=120.0, meter=(4, 4), pitches="trained"
    )
    return config


def sage_20m() -> dict:
    """Overrides for the model that comes with the package: minutes on one GPU, see docs/model_card.md."""
    return dict(
        augment=dict(
            velocity_scale=(0.8, 1.2),
            velocity_offset=(-8, 8),
            tempo_scale=(0.85, 1.15),
            drop_instruments=0.1,
            exchange_programs=0.1,
            cut_start=0.5,
            keep_ranges=True,
        ),
        model=dict(
            architecture="nested",
            lookahead=2,
            kv_sharing="mqa",
            embed_dim=384,
            num_layers=10,
            head_dim=40,
            mlp_dim=1152,
            remat="none",
            dropout_embedding=0.1,
            dropout_residual=0.1,
        ),
        optimizer=dict(learning_rate=1e-3, warmup_steps=100),
        train=dict(steps=3000, eval_every=250, eval_batches=0, checkpoint_every=250, ema_decay=0.998, patience=4),
        sampling=dict(temperature=0.85, top_p=0.9),
    )


def roles_20m() -> dict:
    """Overrides that teach sage-20m to accompany and to infill, with four tracks of a program: minutes on one GPU."""
    recipe = sage_20m()
    recipe["optimizer"] = dict(learning_rate=5e-4, warmup_steps=100)
    recipe["train"].update(steps=1500, init_from="sage-20m")
    return recipe | dict(tokenizer=dict(tracks_per_program=4), representation=dict(name="roles"))


def roles_small() -> dict:
    """Overrides for a small model that accompanies and infills chorales and quartets: a quarter of an hour on two CPU cores."""
    return dict(
        tokenizer=dict(tracks_per_program=4),
        representation=dict(name="roles"),
        data=dict(corpus="music21", context_events=256),
        model=dict(
            architecture="nested",
            lookahead=2,
            kv_sharing="mqa",
            embed_dim=192,
            num_layers=4,
            num_heads=6,
            head_dim=32,
            mlp_dim=512,
            dtype="float32",
            query_chunk_size=32,
            remat="none",
            dropout_embedding=0.1,
            dropout_residual=0.1,
        ),
        optimizer=dict(learning_rate=2e-3, warmup_steps=50),
        train=dict(
            steps=2600, batch_size=8, eval_every=250, eval_batches=0, log_every=10, checkpoint_every=250, ema_decay=0.998
        ),
        sampling=dict(temperature=0.95, top_p=0.95),
    )


def demo() -> dict:
    """Overrides for a small model that trains on two CPU cores."""
    return dict(
        data=dict(context_events=128),
        model=dict(embed_dim=128, num_layers=4, head_dim=16, mlp_dim=384, dtype="float32", query_chunk_size=32, remat="none"),
        optimizer=dict(learning_rate=4e-3, warmup_steps=50, clip_norm=5.0),
        train=dict(
            steps=1200, batch_size=4, eval_every=300, eval_batches=0, log_every=10, checkpoint_every=300, max_minutes=10.0
        ),
        sampling=dict(temperature=0.95, top_p=0.95),
    )


def debug() -> dict:
    """Overrides for tests: a tiny model, a few steps."""
    return dict(
        data=dict(context_events=16),
        model=dict(embed_dim=32, num_layers=2, head_dim=4, mlp_dim=64, dtype="float32"),
        optimizer=dict(learning_rate=3e-3, warmup_steps=2, b2=0.98),
        train=dict(steps=20, batch_size=4, eval_every=10, eval_batches=2, log_every=1, checkpoint_every=10),
        continuation=dict(num_samples=2, num_bars=2, max_events=32),
    )
