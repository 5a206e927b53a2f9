"""What the facts of a config must fulfil, and the values of those that follow from others.

Each problem is named by its fact, with the value and the reason.
"""

from typing import Any

from zoo.errors import ConfigError

MOST_BUCKETS = 65536
"""A hash below it, times the hash's factor, stays in 32 bits."""


def require(config: Any, name: str, holds: bool, reason: str) -> None:
    """Raises ConfigError, naming the fact and its value, unless `holds`."""
    if not holds:
        raise ConfigError(f"{name} = {getattr(config, name, None)!r}: it {reason}")


def complete(config: Any) -> None:
    """Gives the facts that are None the values that follow from others."""

    def derive(name: str, value: Any) -> None:
        if getattr(config, name) is None:
            object.__setattr__(config, name, value)

    for name in ("vocab_size", "hidden_dim", "num_layers", "num_heads", "max_length"):
        require(config, name, getattr(config, name) > 0, "must be positive")
    derive("num_kv_heads", config.num_heads)
    require(
        config,
        "head_dim",
        config.head_dim is not None or config.hidden_dim % config.num_heads == 0,
        f"must be given where hidden_dim ({config.hidden_dim}) is no multiple of num_heads "
        f"({config.num_heads})",
    )
    derive("head_dim", config.hidden_dim // config.num_heads)
    require(config, "head_dim", config.head_dim > 0, "must be positive")
    derive("intermediate_dim", 4 * config.hidden_dim)
    derive("expert_dim", config.intermediate_dim)
    derive("attention_output_bias", config.projection_bias)
    derive("attention_scale", config.head_dim**-0.5)
    derive("qk_norm_bias", config.norm_bias)
    derive("embedding_dim", config.hidden_dim)
    derive("embedding_projection", config.embedding_dim != config.hidden_dim)
    derive("output_dim", config.hidden_dim)
    derive("final_norm", config.norm_position != "post")


def check(config: Any) -> None:
    """Checks all facts of a completed config.

    Raises:
        ConfigError: The first that cannot be.
    """
    _check_sizes(config)
    _check_norms(config)
    _check_positions(config)
    _check_experts(config)
    _check_layers(config)
    _check_tokens(config)


def _check_sizes(config: Any) -> None:
    require(
        config,
        "num_kv_heads",
        config.num_kv_heads > 0 and config.num_heads % config.num_kv_heads == 0,
        f"must divide num_heads ({config.num_heads})",
    )
    positive = ("intermediate_dim", "norm_epsilon", "rotary_base", "initializer_range")
    for name in (*positive, "embedding_dim", "output_dim"):
        require(config, name, getattr(config, name) > 0, "must be positive")
    factors = ("attention_softcap", "logit_softcap", "attention_scale", "logit_scale")
    for name in (*factors, "gate_limit", "local_rotary_base", "window"):
        value = getattr(config, name)
        require(config, name, value is None or value > 0, "must be positive")
    for name in ("dropout", "token_dropout", "attention_dropout"):
        require(config, name, 0 <= getattr(config, name) < 1, "must be in [0, 1)")
    require(
        config,
        "embedding_projection",
        config.embedding_projection or config.embedding_dim == config.hidden_dim,
        f"must be on, since embedding_dim ({config.embedding_dim}) is not hidden_dim "
        f"({config.hidden_dim})",
    )


def _check_norms(config: Any) -> None:
    require(
        config,
        "parallel_residual",
        not (config.parallel_residual and config.norm_position != "pre"),
        f'needs norm_position="pre", not {config.norm_position!r}',
    )
    require(
        config,
        "shared_norm",
        not config.shared_norm or config.parallel_residual,
        "needs parallel_residual",
    )
    require(
        config,
        "first_norm",
        config.first_norm or (config.norm_position == "pre" and not config.parallel_residual),
        'can only be left out with norm_position="pre" and no parallel_residual',
    )
    require(
        config,
        "norm_unit_offset",
        not config.norm_unit_offset or config.norm == "rms",
        'needs norm="rms"',
    )
    require(
        config,
        "norm_scale",
        config.norm_scale
        or not (config.norm_unit_offset or (config.norm_bias and config.norm == "layer")),
        "can only be False without norm_bias and norm_unit_offset",
    )


def _check_positions(config: Any) -> None:
    require(config, "position_offset", config.position_offset >= 0, "must not be negative")
    require(config, "rotary_fraction", 0 < config.rotary_fraction <= 1, "must be in (0, 1]")
    if config.positions == "rotary":
        require(
            config,
            "rotary_fraction",
            config.rotary_dim >= 2 and config.rotary_dim % 2 == 0,
            f"must turn an even number of each head's {config.head_dim} features, "
            f"not {config.rotary_dim}",
        )
    require(
        config,
        "local_rotary_base",
        config.local_rotary_base is None or config.positions == "rotary",
        'needs positions="rotary"',
    )
    require(config, "relative_buckets", config.relative_buckets >= 4, "must be at least 4")
    disentangled = config.position_bias == "disentangled"
    if config.relative_max_distance is None:
        require(
            config,
            "relative_max_distance",
            disentangled,
            'may be None with position_bias="disentangled" alone',
        )
    else:
        require(
            config,
            "relative_max_distance",
            config.relative_max_distance > config.relative_buckets // 2 + disentangled,
            f"must be above half of relative_buckets ({config.relative_buckets})",
        )
    require(config, "disentangled_terms", bool(config.disentangled_terms), "must name one")


def _check_experts(config: Any) -> None:
    require(config, "num_experts", config.num_experts >= 0, "must not be negative")
    if config.num_experts:
        require(
            config,
            "experts_per_token",
            0 < config.experts_per_token <= config.num_experts,
            f"must be between 1 and num_experts ({config.num_experts})",
        )
        require(config, "expert_dim", config.expert_dim > 0, "must be positive")
        require(config, "num_experts", config.gated, "needs gated=True: experts are gated layers")


def _check_layers(config: Any) -> None:
    require(
        config,
        "global_layers",
        not config.global_layers or config.window is not None,
        "needs window",
    )
    for name in ("global_layers", "unturned_layers", "dense_layers"):
        require(
            config,
            name,
            all(0 <= number < config.num_layers for number in getattr(config, name)),
            f"must name layers from 0 to {config.num_layers - 1}",
        )
    shared, turn = config.shared_blocks, config.blocks_in_turn
    require(
        config,
        "shared_blocks",
        shared is None or 0 < shared <= config.num_layers,
        f"must be between 1 and num_layers ({config.num_layers})",
    )
    divides = shared is not None and turn > 1 and not (shared % turn or config.num_layers % turn)
    require(
        config,
        "blocks_in_turn",
        turn == 1 or divides,
        f"must divide shared_blocks ({shared}) and num_layers ({config.num_layers})",
    )


def _check_tokens(config: Any) -> None:
    require(config, "token_types", config.token_types >= 0, "must not be negative")
    require(config, "ngram_lengths", all(n > 1 for n in config.ngram_lengths), "must be above 1")
    require(
        config,
        "ngram_buckets",
        0 < config.ngram_buckets <= MOST_BUCKETS,
        f"must be 1 to {MOST_BUCKETS}",
    )
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(config, name, None)
        require(
            config,
            name,
            value is None or 0 <= value < config.vocab_size,
            f"must be an id below vocab_size ({config.vocab_size})",
        )
