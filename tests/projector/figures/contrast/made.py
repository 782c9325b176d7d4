"""A report made by hand, in the shape of ``report.json``."""

from __future__ import annotations

from typing import Any

STREAMS = ("resid_pre", "resid_mid", "resid_post")


def made(
    *models: str, n_layers: int = 4, has_mid: bool = True, positive: str = "code"
) -> dict[str, Any]:
    """A report of models whose two sets part: the cosine falls from 0.98 to about 0.3."""
    names = models or ("tiny",)
    rows = [
        _row(name, layer, stream)
        for name in names
        for layer in range(n_layers)
        for stream in STREAMS
        if has_mid or stream != "resid_mid"
    ]
    return {
        "models": list(names),
        "pair": "code-docstrings",
        "positive_name": positive,
        "negative_name": "docstrings",
        "n_positive": 256,
        "n_negative": 250,
        "at": "last",
        "notes": [],
        "seed": 0,
        "rows": rows,
        "growth": [_step(name, layer, has_mid) for name in names for layer in range(n_layers)],
        "sharing": [
            {
                "model": name,
                "rows": [_pair(layer) for layer in range(n_layers - 1)],
                "verdict": "not shared",
                "sentence": "Successive layers do not share directions.",
                "notes": [],
            }
            for name in names
        ],
        "untangling": [_lie(row) for row in rows],
        "directions": [
            _effect(name, layer, scale, which)
            for name in names
            for layer in (1, 2)
            for scale in (1.0, -1.0, None)
            for which in ("positive", "negative", "difference")
        ],
        "reasons": {},
    }


def _row(model: str, layer: int, stream: str) -> dict[str, Any]:
    depth = layer + STREAMS.index(stream) / 2
    is_embedding = depth == 0
    cosine = 0.4 if is_embedding else 0.98 - 0.16 * depth
    shares = {"growth_pre": 0.6, "growth_update": 0.5, "growth_covariance": -0.1}
    if is_embedding:
        shares = dict.fromkeys(shares)  # type: ignore[assignment]
    scale = 3.0**depth
    return {
        "model": model,
        "layer": layer,
        "stream": stream,
        "cosine": cosine,
        "cosine_low": cosine - 0.03,
        "cosine_high": cosine + 0.02,
        "cosine_split_half": 0.97 - 0.01 * depth,
        "cosine_split_half_low": 0.95 - 0.01 * depth,
        "cosine_split_half_high": 0.98 - 0.01 * depth,
        "cosine_permuted": 0.98,
        "cosine_permuted_low": 0.96,
        "cosine_permuted_high": 0.99,
        "variance_mean_positive": 0.0 if is_embedding else 0.01 * scale,
        "variance_mean_negative": 0.02 * scale,
        "variance_max_positive": 0.0 if is_embedding else 2 * scale,
        "variance_max_negative": 3 * scale,
        **shares,
        "probe_accuracy": 0.97,
        "probe_permuted": 0.51,
    }


def _step(model: str, layer: int, has_split: bool) -> dict[str, Any]:
    split = {
        "attention_variance": 0.2,
        "mlp_variance": 0.25,
        "covariance_pre_attention": -0.06,
        "covariance_pre_mlp": -0.04,
        "covariance_attention_mlp": 0.05,
    }
    return {
        "model": model,
        "layer": layer,
        "pre": 0.6,
        "update": 0.5,
        "covariance": -0.1,
        "covariance_rotated": 0.02,
        "correlation": -0.09,
        "correlation_rotated": 0.018,
        **(split if has_split else dict.fromkeys(split)),
    }


def _pair(layer: int) -> dict[str, Any]:
    def measured(value: float) -> dict[str, float]:
        return {
            "value": value,
            "random_median": 0.02,
            "random_low": -0.01,
            "random_high": 0.05,
        }

    return {
        "layer": layer,
        "following": layer + 1,
        "cosine": measured(-0.1 + 0.1 * layer),
        "captured": measured(0.2),
        "overlap": measured(0.1),
        "angles": [40.0, 60.0, 80.0],
        "angles_random": [70.0, 80.0, 88.0],
        "attention_weights": measured(0.3),
        "mlp_weights": measured(0.25),
    }


def _lie(row: dict[str, Any]) -> dict[str, Any]:
    depth = row["layer"] + STREAMS.index(row["stream"]) / 2
    return {
        "model": row["model"],
        "layer": row["layer"],
        "stream": row["stream"],
        "within_cosine_positive": 0.9 - 0.1 * depth,
        "within_cosine_negative": 0.8 - 0.1 * depth,
        "between_cosine": 0.6 - 0.1 * depth,
        "within_cosine_permuted": 0.7 - 0.1 * depth,
        "probe_accuracy": 0.7 if depth == 0 else 0.97,
        "probe_permuted": 0.51,
        "probe_permuted_high": 0.58,
        "effective_dimension_positive": 8.0 + depth,
        "effective_dimension_negative": 6.0 + depth,
        "effective_dimension_isotropic_positive": 40.0,
        "effective_dimension_isotropic_negative": 38.0,
        "one_direction": 0.8,
        "one_direction_permuted": 0.01,
        "one_direction_permuted_high": 0.05,
        "pair_direction": None,
        "between_share": 0.2,
    }


def _effect(model: str, layer: int, scale: float | None, which: str) -> dict[str, Any]:
    return {
        "model": model,
        "layer": layer,
        "stream": "resid_post",
        "change": "ablated" if scale is None else "added",
        "scale": scale,
        "set": which,
        "measure": "log-perplexity",
        "continuation": None,
        "effect": 0.4 * (scale or 0.5),
        "effect_low": 0.4 * (scale or 0.5) - 0.1,
        "effect_high": 0.4 * (scale or 0.5) + 0.05,
        "random": [0.01, -0.02, 0.05],
        "exceeds_random": scale is not None,
    }
