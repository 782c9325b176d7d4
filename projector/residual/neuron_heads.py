"""Heads of later layers that read a neuron's output, from their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.model.architecture.stream.reading import push
from projector.residual.circuits.weights import LayerCircuits, find_circuits
from projector.residual.subject import Subject


@dataclass(frozen=True)
class HeadReader:
    """How strongly the queries, keys or values of a head read a neuron's output.

    Attributes:
        part: ``query``, ``key`` or ``value``.
        strength: ‖W d‖ / ‖W‖ · √H for the written unit vector d; 1 for a random direction, at most
            √H.
    """

    layer: int
    head: int
    part: str
    strength: float


@dataclass(frozen=True)
class HeadReaders:
    """The heads of later layers that read a neuron's output.

    Attributes:
        strongest: strongest first.
        n_parts: number of compared queries, keys and values.
        shuffled_mean: mean over the shuffles of the largest strength of any part.
        shuffled_most: maximum over all shuffles.
        n_beyond: number of parts with a larger strength than ``shuffled_most``.
        reasons: layer → reason why its heads can't be separated.
    """

    strongest: tuple[HeadReader, ...]
    n_parts: int
    shuffled_mean: float
    shuffled_most: float
    n_beyond: int
    reasons: dict[int, str]


@torch.no_grad()
def find_head_readers(subject: Subject, layer: int, rows: Tensor, n_top: int) -> HeadReaders | None:
    """Rank the heads after a layer by how strongly they read its written direction.

    The first call finds a model's heads, with some forward and backward passes over a few tokens
    for each layer. Heads that share keys and values share these parts' strengths.

    Args:
        rows: (1 + S, H) float32: the direction, and S shuffled ones.

    Returns:
        The heads; None if no later layer has heads that can be separated.
    """
    later = [k for k in subject.attentions if k > layer]
    if not later:
        return None
    found = find_circuits(subject, later)
    largest = torch.zeros(len(rows) - 1)
    every: list[HeadReader] = []
    directions, at = rows, layer + 1
    for circuits in found.layers:
        for between in subject.reads[at : circuits.layer]:
            directions = push(directions, between.on_the_way)
        at = circuits.layer
        for part, strengths in _strengths(circuits, directions).items():
            largest = torch.maximum(largest, strengths[:, 1:].amax(dim=0))
            every += [
                HeadReader(at, head, part, float(value))
                for head, value in enumerate(strengths[:, 0])
            ]
    if not every:
        return None
    every.sort(key=lambda each: -each.strength)
    most = float(largest.max())
    return HeadReaders(
        strongest=tuple(every[:n_top]),
        n_parts=len(every),
        shuffled_mean=float(largest.mean()),
        shuffled_most=most,
        n_beyond=sum(each.strength > most for each in every),
        reasons=found.reasons,
    )


def _strengths(circuits: LayerCircuits, directions: Tensor) -> dict[str, Tensor]:
    """For each part its (A, 1 + S) strengths."""
    parts = {
        "query": circuits.qk.left.transpose(-1, -2),
        "key": circuits.qk.right,
        "value": circuits.ov.right,
    }
    if any(form.centres for _, form in circuits.reading.norms):
        directions = directions - directions.mean(dim=-1, keepdim=True)
    units = torch.nn.functional.normalize(directions, dim=-1, eps=1e-30)
    found = {}
    for name, weight in parts.items():
        read = torch.linalg.vector_norm(weight @ units.to(weight).T, dim=1)
        size = torch.linalg.vector_norm(weight.flatten(1), dim=1, keepdim=True)
        found[name] = (read / size.clamp_min(1e-30) * units.shape[-1] ** 0.5).cpu()
    return found
