"""Made-up particles in the form of a saved artifact: two prompts, or the parts of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from projector.residual.particles.records import Frame, FrameFidelity

ATTACK = "</script><img src=x onerror=alert('token')>"
A = ("<s>", "the", " cat", ATTACK, " sat", " down")
B = ("<s>", "the", " dog", " sat", " down")
N_BEGINNING, N_END, N_LINES = 2, 2, 2
Tensors = dict[str, NDArray[Any]]


def _report(frames: list[Frame], prompts: list[tuple[str, ...]], **more: Any) -> dict[str, Any]:
    return {
        "kind": "layer-time",
        "model": "made up",
        "settings": {"particles": "tokens", "reduction": "pca", "dim": 3, "fit": "prompt"},
        "prompts": [
            {
                "text": "".join(tokens),
                "tokens": [{"text": text, "made": text == "<s>"} for text in tokens],
            }
            for tokens in prompts
        ],
        "n_frames": len(frames),
        "frames": [each.as_dict() for each in frames],
        "parts": [],
        "part_kinds": [],
        "metric": "euclidean",
        "fidelity": [
            FrameFidelity(
                each.name,
                each.layer,
                0.9 - 0.1 * k,
                0.1,
                0.7,
                0.2,
                displacement_correlation=0.5 if k else None,
            ).as_dict()
            for k, each in enumerate(frames)
        ],
        "displacement_correlation": 0.8,
        "outliers": [],
        "notes": ["made up"],
        "reasons": {},
        **more,
    }


def two_prompts(n_layers: int = 3) -> tuple[dict[str, Any], Tensors]:
    """Tokens of A and B; the first of each is an outlier, and one is a script."""
    frames = [Frame.of(None), *(Frame.of(layer) for layer in range(n_layers))]
    owners = [(0, i) for i in range(len(A))] + [(1, i) for i in range(len(B))]
    n, rng = len(owners), np.random.default_rng(0)
    positions = rng.normal(size=(len(frames), n, 3)).cumsum(axis=0).astype(np.float32)
    positions[:, [0, len(A)]] += 50
    moved = np.zeros((len(frames), n), dtype=np.float32)
    moved[1:] = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    partners = [(i, len(A) + i) for i in range(N_BEGINNING)]
    partners += [(len(A) - k, n - k) for k in range(1, N_END + 1)]
    report = _report(
        frames,
        [A, B],
        shared={"beginning": N_BEGINNING, "end": N_END},
        outliers=[
            {"prompt": k, "token": 0, "text": "<s>", "frame": "layer 0", "times_usual": 9.0}
            for k in (0, 1)
        ],
        first_difference={
            "position": 2, "at": "end", "frame": 2, "layer": 1, "distance": 0.31,
            "null_median": 0.2, "null_high": 0.27, "n_samples": 20, "chance": 0.1, "reason": None,
        },
        causal_zeros={"max_error": 3e-7, "allowed": 1e-5, "tokens": 2},
        predictions=[
            [
                [{"token": f" {f}.{i}", "id": i, "probability": i / 10} for i in range(len(tokens))]
                for f in range(len(frames))
            ]
            for tokens in (A, B)
        ],
    )  # fmt: skip
    return report, {
        "positions": positions,
        "norms": np.linalg.norm(positions, axis=2).astype(np.float32),
        "displacements": moved,
        "neighbours": np.tile(np.arange(N_LINES), (len(frames), n, 1)).astype(np.int32),
        "distances": np.ones((len(frames), n, N_LINES), dtype=np.float32),
        "born": np.zeros(n, dtype=np.int32),
        "outlying": np.array([i == 0 for _, i in owners], dtype=np.uint8),
        "owner_prompt": np.array([prompt for prompt, _ in owners], dtype=np.int32),
        "owner_token": np.array([token for _, token in owners], dtype=np.int32),
        "owner_part": np.full(n, -1, dtype=np.int32),
        "partners": np.array(partners, dtype=np.int32),
    }


def contributions() -> tuple[dict[str, Any], Tensors]:
    """Of two tokens an embedding, and a head and a group of neurons of two layers."""
    frames = [Frame.of(None), Frame.of(0), Frame.of(1)]
    parts = ["embedding", "head 0.0", "neurons 0.0", "head 1.0", "neurons 1.0"]
    born = np.array([0, 1, 1, 2, 2])
    n = 2 * len(parts)
    written = np.random.default_rng(1).normal(size=(n, 3))
    births = np.tile(born, 2)
    positions = np.stack([np.where((births <= f)[:, None], written, 0) for f in range(3)])
    report = _report(
        frames, [("a", "b")], parts=parts, part_kinds=["embedding", "head", "mlp", "head", "mlp"]
    )
    report["settings"]["particles"] = "contributions"
    return report, {
        "positions": positions.astype(np.float32),
        "norms": np.linalg.norm(positions, axis=2).astype(np.float32),
        "displacements": np.zeros((3, n), dtype=np.float32),
        "neighbours": np.zeros((3, n, 0), dtype=np.int32),
        "distances": np.zeros((3, n, 0), dtype=np.float32),
        "born": births.astype(np.int32),
        "outlying": np.zeros(n, dtype=np.uint8),
        "owner_prompt": np.zeros(n, dtype=np.int32),
        "owner_token": np.repeat(np.arange(2), len(parts)).astype(np.int32),
        "owner_part": np.tile(np.arange(len(parts)), 2).astype(np.int32),
        "partners": np.zeros((0, 2), dtype=np.int32),
    }
