"""Parts of prompts for tokens, kinds of parts for contributions, and sums of contributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Parts:
    """Parts of the prompts.

    Attributes:
        names: names in the order of their colours.
        of_tokens: for each prompt, the index of each token's part.
    """

    names: tuple[str, ...]
    of_tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Kinds:
    """Kinds of parts of the model: their names, and the kind of each part."""

    names: tuple[str, ...]
    of_parts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Sums:
    """One particle per token: the sum of its contributions so far.

    Attributes:
        positions: float32 (F, n, 3).
        owners: int32 (n,) each: prompt, token, and part, which is −1.
    """

    positions: NDArray[np.float32]
    owners: dict[str, NDArray[np.int32]]

    def are_outliers(
        self, outliers: NDArray[np.bool_], owners: Mapping[str, NDArray[np.int32]]
    ) -> NDArray[np.bool_]:
        """Whether any contribution of the same token is an outlier, (n,); ``owners`` are those of
        all particles.
        """
        of = np.stack([owners["prompt"], owners["token"]], axis=1)[: len(outliers)][outliers]
        tokens = {(int(prompt), int(token)) for prompt, token in of}
        own = zip(self.owners["prompt"], self.owners["token"], strict=True)
        return np.array([(int(p), int(t)) in tokens for p, t in own], dtype=bool)


_KINDS = {
    "embedding": "embedding",
    "head": "attention head",
    "mlp": "MLP neurons",
    "other": "biases and the rest",
}


def parts_of(report: Report) -> Parts:
    """The parts of two prompts (shared and different tokens), or of one prompt (kinds of
    tokens).
    """
    prompts = report["prompts"]
    if len(prompts) < 2:
        names: tuple[str, ...] = ("added by the tokenizer or template", "text", "last token")
        tokens = prompts[0]["tokens"]
        own = [0 if token.get("made") else 1 for token in tokens]
        own[-1:] = [2]
        return Parts(names, (tuple(own),))
    shared = report.get("shared") or {}
    n_beginning, n_end = int(shared.get("beginning") or 0), int(shared.get("end") or 0)
    names = ("shared beginning", "A alone", "B alone", "shared end, in A", "shared end, in B")
    found = []
    for k, prompt in enumerate(prompts):
        n = len(prompt["tokens"])
        found.append(
            tuple(0 if i < n_beginning else 1 + k if i < n - n_end else 3 + k for i in range(n))
        )
    return Parts(names, tuple(found))


def token_ramp(report: Report) -> tuple[tuple[float, ...], ...]:
    """For each prompt, each token's position on the colour scale, from the first (0) to the last
    (1).

    Shared tokens have the same colour; each prompt's own tokens in between are spread evenly.
    """
    counts = [len(prompt["tokens"]) for prompt in report["prompts"]]
    shared = report.get("shared") or {}
    n_beginning, n_end = int(shared.get("beginning") or 0), int(shared.get("end") or 0)
    longest = max(counts)

    def place(i: int, n: int) -> float:
        if i < n_beginning or longest < 2:
            at = float(i)
        elif i >= n - n_end:
            at = float(longest - n + i)
        else:
            own, room = n - n_beginning - n_end, longest - n_beginning - n_end
            at = n_beginning + (i - n_beginning + 0.5) * room / own - 0.5
        return round(at / max(1, longest - 1), 4)

    return tuple(tuple(place(i, n) for i in range(n)) for n in counts)


def kinds_of(report: Report) -> Kinds:
    """The kinds of the report's parts."""
    given = [str(kind) for kind in report.get("part_kinds") or ()]
    order = [kind for kind in _KINDS if kind in given]
    names = tuple(_KINDS[kind] for kind in order)
    return Kinds(names, tuple(order.index(kind) if kind in order else -1 for kind in given))


def sum_positions(
    report: Report,
    positions: NDArray[np.float32],
    owners: Mapping[str, NDArray[np.int32]],
    born: NDArray[np.int32],
) -> Sums:
    """The sums of contributions, if the map is linear and positions add up too.

    Args:
        positions: (F, P, 3), positions of contributions.
        born: (P,), the first frame of each.
    """
    settings = report.get("settings", {})
    adds_up = settings.get("particles") == "contributions" and settings.get("reduction") == "pca"
    if not adds_up or settings.get("per_layer"):
        none = np.zeros(0, dtype=np.int32)
        return Sums(
            np.zeros((len(positions), 0, 3), dtype=np.float32),
            dict.fromkeys(("prompt", "token", "part"), none),
        )
    there = (np.arange(len(positions))[:, None] >= born)[..., None]
    written = np.where(there, positions, 0).astype(np.float64)
    places = np.stack([owners["prompt"], owners["token"]], axis=1)
    tokens, which = np.unique(places[places[:, 1] >= 0], axis=0, return_inverse=True)
    found = np.zeros((len(positions), len(tokens), 3))
    for f in range(len(positions)):
        np.add.at(found[f], which.reshape(-1), written[f][places[:, 1] >= 0])
    return Sums(
        found.astype(np.float32),
        {
            "prompt": tokens[:, 0].astype(np.int32),
            "token": tokens[:, 1].astype(np.int32),
            "part": np.full(len(tokens), -1, dtype=np.int32),
        },
    )
