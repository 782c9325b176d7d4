"""A saved layer-time as data for the viewer: JSON with arrays as base64.

The dashboard's component and the offline page use the same data.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from projector.corpus.pieces import readable
from projector.figures.layer_time.parts import kinds_of, parts_of, sum_positions, token_ramp
from projector.figures.layer_time.views import box_of, density_of, followed, parts_view
from projector.figures.layer_time.words import (
    NAMELESS,
    facts_of,
    lead_of,
    named,
    sentence,
    title_of,
)

Report = Mapping[str, Any]
Tensors = Mapping[str, NDArray[Any]]
# What a scale leaves out at each end, so that a few extreme values do not wash out the rest.
_LOW, _HIGH = 0.01, 0.99
# Colours of lines follow the logarithm where the median is within this part of the scale.
_SMALL_PART = 0.25
# Of two bytes the greatest number, which stands for none.
_NO_NUMBER = 65_535


def viewer_data(report: Report, tensors: Tensors) -> dict[str, Any]:
    """The data for ``mount`` of the viewer's script.

    Args:
        report: the content of ``report.json``.
        tensors: the content of ``particles.safetensors``; F frames, P particles, k neighbours.

    Returns:
        JSON values. Arrays are base64 of little-endian numbers. There are N particles: P of the
        artifact and, if contributions add up in the map, one more per token for the sum of its
        contributions so far. The first ``n_still`` of them don't move after their birth (all P
        contributions, or none), and are sent once: ``still_positions`` float32 (n_still, 3), before
        birth 0 if ``from_origin``; ``still_norms`` float32 (n_still,). For the remaining M = N −
        n_still, ``positions`` is float32 (F, M, 3), ``norms`` and ``displacements`` are float32 (F,
        M), NaN for sums. ``neighbours`` and ``distances`` are (n, k): the existing particles of
        each frame, frame by frame; uint16 or, for very many particles, uint32, with the largest
        number for missing ones; distances are uint16 on the scale ``distances_max`` · (number /
        65534)². ``born`` is int32 (N,); ``owner_prompt``, ``owner_token`` and ``owner_part`` int32
        (N,), −1 for none; ``pairs`` int32 (n, 2), partner particles of both prompts. ``scales``
        holds the range of each colour scale over all frames. ``is_counted`` uint8 (N,) marks the
        particles that the ``density`` counts; ``followed`` is the view with a scale that follows
        the frames, and ``parts_view`` that of contributions without their sums (None if there are
        no sums). ``id`` is equal for equal content. Descriptions of particles may be left out later
        if the id is the same.
    """
    settings = report.get("settings", {})
    kinds = kinds_of(report)
    found = {
        "title": title_of(report),
        "lead": lead_of(report),
        "facts": facts_of(report),
        "notes": [sentence(str(note)) for note in report.get("notes") or ()],
        "reasons": {name: str(why) for name, why in (report.get("reasons") or {}).items()},
        "particles": settings.get("particles", "tokens"),
        "dim": int(settings.get("dim", 3)),
        "axes": ["PC 1", "PC 2", "PC 3"] if settings.get("reduction") == "pca" else None,
        "metric": report.get("metric", "euclidean"),
        "frames": [str(frame["name"]) for frame in report["frames"]],
        "layers": [frame["layer"] for frame in report["frames"]],
        "n_frames": len(report["frames"]),
        **_particles(report, tensors),
        "prompts": _prompts(report),
        "prompt_parts": parts_of(report).names,
        "kinds": kinds.names,
        "part_names": [str(name) for name in report.get("parts") or ()],
        "part_kinds": kinds.of_parts,
        "predictions": _predictions(
            report.get("predictions"), report["prompts"], len(report["frames"])
        ),
        "fidelity": [_without_nan(dict(each)) for each in report.get("fidelity") or ()],
        "displacement_correlation": report.get("displacement_correlation"),
        "displacement_random": report.get("displacement_random"),
    }
    return {"id": _digest(found), **found}


def _particles(report: Report, tensors: Tensors) -> dict[str, Any]:
    """The arrays, with sums behind the artifact's own particles; where they lie, and the scales."""
    positions = np.asarray(tensors["positions"], dtype=np.float32)
    owners = {
        name: np.asarray(tensors[f"owner_{name}"], dtype=np.int32).reshape(-1)
        for name in ("prompt", "token", "part")
    }
    born = np.asarray(tensors["born"], dtype=np.int32).reshape(-1)
    outliers = np.asarray(tensors["outlying"]).astype(bool)
    sums = sum_positions(report, positions, owners, born)
    n_sums = sums.positions.shape[1]
    outliers = np.concatenate([outliers, sums.are_outliers(outliers, owners)])
    positions = np.concatenate([positions, sums.positions], axis=1)
    owners = {name: np.concatenate([owners[name], sums.owners[name]]) for name in owners}
    born = np.concatenate([born, np.zeros(n_sums, dtype=np.int32)])
    # What is not there yet has no norm, and what has just come has not moved.
    age = np.arange(len(positions))[:, None] - born
    norms = np.where(age >= 0, _widened(tensors["norms"], n_sums, np.nan), np.nan)
    moved = np.where(age > 0, _widened(tensors["displacements"], n_sums, np.nan), np.nan)
    neighbours = np.asarray(tensors["neighbours"])
    distances = np.asarray(tensors["distances"])
    n_still, from_origin = _still(report, positions, norms, born, n_sums)
    middle, reach = box_of(positions, age >= 0, outliers)
    dim = int(report.get("settings", {}).get("dim", 3))
    n = positions.shape[1] - n_sums
    return {
        "parts_view": parts_view(positions[:, :n], age[:, :n] >= 0, outliers[:n], dim)
        if n_sums
        else None,
        "n_points": positions.shape[1],
        "n_sums": n_sums,
        "n_still": n_still,
        "from_origin": from_origin,
        "k": int(neighbours.shape[2]),
        "middle": middle,
        "reach": reach,
        "followed": followed(positions, age >= 0, outliers, dim),
        "density": density_of(report, tensors),
        "still_positions": _text(positions[-1, :n_still], "<f4"),
        "still_norms": _text(norms[-1, :n_still], "<f4"),
        "positions": _text(positions[:, n_still:], "<f4"),
        "born": _text(born, "<i4"),
        "norms": _text(norms[:, n_still:], "<f4"),
        "displacements": _text(moved[:, n_still:], "<f4"),
        **_lines(neighbours, distances, age[:, : neighbours.shape[1]] >= 0),
        **{f"owner_{name}": _text(values, "<i4") for name, values in owners.items()},
        "pairs": _text(_pairs(tensors["partners"], owners, n_sums), "<i4"),
        "scales": {
            "norm": _scale(norms[:, ~outliers]),
            "displacement": _scale(moved[:, ~outliers]),
            "line": _line_scale(neighbours, distances, outliers[: neighbours.shape[1]]),
        },
        "is_counted": _text(_counted(outliers, n_sums), "u1"),
    }


def _still(
    report: Report,
    positions: NDArray[np.float32],
    norms: NDArray[np.float32],
    born: NDArray[np.int32],
    n_sums: int,
) -> tuple[int, bool]:
    """How many of the first particles stay where they are, and whether they come from the origin.

    None do unless all do, to the last bit; then nothing is lost where they travel once.
    """
    n = positions.shape[1] - n_sums
    if report.get("settings", {}).get("particles") != "contributions" or not n:
        return 0, False
    there = np.arange(len(positions))[:, None] >= born[:n]
    last = positions[-1, :n]
    sizes = np.where(there, norms[-1, :n], np.nan)
    if not np.array_equal(norms[:, :n], sizes, equal_nan=True):
        return 0, False
    for from_origin in (False, True):
        placed = np.where(there[..., None] | (not from_origin), last, 0)
        if np.array_equal(positions[:, :n], placed, equal_nan=True):
            return n, from_origin
    return 0, False


def _lines(
    neighbours: NDArray[Any], distances: NDArray[Any], there: NDArray[np.bool_]
) -> dict[str, Any]:
    """Neighbours and distances of the particles that are there, in the fewest bytes."""
    kind = "<u2" if neighbours.shape[1] < _NO_NUMBER else "<u4"
    far = np.asarray(distances)[there].astype(np.float64)
    most = float(np.max(far, initial=0, where=np.isfinite(far)))
    share = np.sqrt(np.divide(far, most or 1.0))
    numbers = np.where(np.isfinite(share), np.round(share * (_NO_NUMBER - 1)), _NO_NUMBER)
    return {
        # −1 becomes the greatest number.
        "neighbours": _text(neighbours[there].astype(kind), kind),
        "distances": _text(numbers.astype("<u2"), "<u2"),
        "distances_max": most,
    }


def _text(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def _widened(values: NDArray[Any], n: int, fill: float) -> NDArray[Any]:
    """(F, P, …) with n particles more."""
    values = np.asarray(values)
    more = np.full((values.shape[0], n, *values.shape[2:]), fill, dtype=values.dtype)
    return np.concatenate([values, more], axis=1)


def _scale(values: NDArray[Any]) -> dict[str, float] | None:
    """Between which values colours go, over all frames; None if there are none."""
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return None
    low, high = (float(q) for q in np.quantile(known, (_LOW, _HIGH)))
    return {"low": low, "high": high if high > low else low * 1.001}


def _line_scale(
    neighbours: NDArray[Any], distances: NDArray[Any], outliers: NDArray[np.bool_]
) -> dict[str, Any] | None:
    """Between which distances the colours of lines go, over all frames; None without lines.

    Lines to or from an outlier are left out: they may be so long that all others would look alike.
    ``is_log`` tells whether colours follow the logarithm.
    """
    is_shown = (neighbours >= 0) & ~outliers[None, :, None]
    is_shown &= ~outliers[np.maximum(neighbours, 0)]
    known = distances[is_shown] if is_shown.any() else distances[neighbours >= 0]
    known = known[np.isfinite(known)].astype(np.float64)
    if not known.size:
        return None
    least, low, middle, high = (float(q) for q in np.quantile(known, (0, _LOW, 0.5, _HIGH)))
    is_log = 0 < middle < _SMALL_PART * high
    # By the logarithm, distances of states that are equal but for rounding would take most colours.
    low = max(low, middle**2 / high) if is_log else least
    return {"low": low, "high": high if high > low else low + 1e-6, "is_log": is_log}


def _counted(outliers: NDArray[np.bool_], n_sums: int) -> NDArray[np.bool_]:
    """(N,) which particles a density counts: neither outliers nor sums of others."""
    counted = ~outliers
    counted[len(counted) - n_sums :] = False
    return counted


def _pairs(
    partners: NDArray[Any], owners: Mapping[str, NDArray[np.int32]], n_sums: int
) -> NDArray[np.int32]:
    """(n, 2) particles that belong together; where there are sums, those of the same tokens."""
    found = np.asarray(partners, dtype=np.int32).reshape(-1, 2)
    if not n_sums:
        return found
    places = np.stack([owners["prompt"], owners["token"]], axis=1)
    n = len(places) - n_sums
    sums = {(int(a), int(b)): n + i for i, (a, b) in enumerate(places[n:])}
    pairs = [tuple(sums.get((int(a), int(b)), -1) for a, b in places[pair]) for pair in found]
    own = sorted({pair for pair in pairs if min(pair) >= 0})
    return np.array(own, dtype=np.int32).reshape(-1, 2)


def _prompts(report: Report) -> list[dict[str, Any]]:
    parts, ramp = parts_of(report), token_ramp(report)
    prompts = report["prompts"]
    return [
        {
            "name": "" if len(prompts) == 1 else "AB"[k],
            "tokens": [
                {
                    "text": readable(str(token["text"]), running=True) or NAMELESS,
                    "name": named(str(token["text"])),
                    "made": bool(token.get("made")),
                    "part": parts.of_tokens[k][i],
                    "ramp": ramp[k][i],
                }
                for i, token in enumerate(prompt["tokens"])
            ],
        }
        for k, prompt in enumerate(prompts)
    ]


def _predictions(
    given: Sequence[Any] | None, prompts: Sequence[Any], n_frames: int
) -> list[dict[str, Any]] | None:
    """For each prompt, what the lens predicts in each frame at each token: (F, T)."""
    if not given:
        return None
    found = []
    for prompt, frames in zip(prompts, given, strict=False):
        texts: dict[str, int] = {}
        shape = (n_frames, len(prompt["tokens"]))
        index, probability = np.full(shape, -1, dtype=np.int32), np.full(shape, np.nan)
        for f, row in enumerate((frames or ())[: shape[0]]):
            for t, each in enumerate((row or ())[: shape[1]]):
                if each is None:
                    continue
                index[f, t] = texts.setdefault(readable(str(each["token"])), len(texts))
                value = each.get("probability")
                probability[f, t] = np.nan if value is None else value
        found.append(
            {
                "texts": list(texts),
                "index": _text(index, "<i4"),
                "probability": _text(probability, "<f4"),
            }
        )
    return found


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not np.isfinite(value) else value
        for name, value in values.items()
    }
