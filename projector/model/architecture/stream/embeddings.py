"""The input of the first block, split into its parts: tokens, positions, and the norm after
them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.stream.records import EmbeddingParts, EmbeddingSource
from projector.model.architecture.trial import Trial, is_matrix
from projector.model.capture import Tap
from projector.model.context import input_embedding


def find_embedding(
    model: nn.Module, architecture: Architecture, trial: Trial, constants: list[float]
) -> EmbeddingParts:
    """Find the terms that sum to the first block's input.

    Candidates are the embedding tables that are indexed by integers before the first block, and the
    norms that output the stream. The factors come from least squares, and the sum must equal the
    stream; if it doesn't, the stream is one part.

    Args:
        trial: a trial run that kept copies of the tensors.
        constants: factors to try before the least-squares solution.
    """
    first = architecture.blocks[0].module
    stream = Tap(first, "input")
    before = list(trial.inputs)
    before = before[: before.index(first)]
    target = trial.copies[first, "input"]
    norms: list[tuple[nn.Module, NormForm]] = []
    for module in reversed(before):
        given = trial.copies.get((module, "output"))
        if given is None or not _same(given, target):
            continue
        read = trial.copies[module, "input"]
        if read.shape != given.shape or not read.is_floating_point() or _same(read, given):
            continue
        form = NormForm.of(module, target.shape[-1])
        if form is not None:
            norms.insert(0, (module, form))
            target = read
    sources = _lookups(model, before, trial, architecture.n_hidden)
    whole = EmbeddingParts(
        stream,
        (EmbeddingSource("embedding", stream, 1.0),),
        reason="the first block's input isn't a sum of embeddings",
    )
    if not sources:
        return whole
    flat = target.reshape(-1, target.shape[-1])
    rows = [spread(trial.copies[m, "output"], len(flat)).double().cpu() for m in sources]
    tolerance = 1e-5 if target.dtype in (torch.float32, torch.float64) else 2e-2
    factors = fit_factors(rows, flat.double().cpu(), constants, tolerance)
    if factors is None:
        return whole
    tables = zip(rows, sources.values(), strict=True)
    names = [_name(i, row, looked_up) for i, (row, looked_up) in enumerate(tables)]
    return EmbeddingParts(
        stream,
        tuple(
            EmbeddingSource(name, Tap(module, "output"), factor)
            for name, module, factor in zip(names, sources, factors, strict=True)
        ),
        tuple(norms),
    )


def _lookups(
    model: nn.Module, before: list[nn.Module], trial: Trial, width: int
) -> dict[nn.Module, Tensor]:
    """The modules whose outputs are looked up by whole numbers, and these numbers; the tokens'
    comes first.

    A table narrower than the stream is followed by a matrix that widens it, which stands for it.
    """
    found: dict[nn.Module, Tensor] = {}
    for module in before:
        read, given = trial.copies[module, "input"], trial.copies.get((module, "output"))
        if read.is_floating_point() or given is None or not given.is_floating_point():
            continue
        if given.shape[-1] != width:
            wider = (
                m
                for m in before
                if is_matrix(m)
                and trial.copies[m, "output"].shape[-1] == width
                and _same(trial.copies[m, "input"], given)
            )
            module = next(wider, module)
        if trial.copies[module, "output"].shape[-1] == width:
            found.setdefault(module, read)
    # A module around others also takes whole numbers: only the innermost look something up.
    inner = [m for m in found if not any(o is not m and o in set(m.modules()) for o in found)]
    table = input_embedding(model)
    inner.sort(key=lambda m: m is not table and not is_matrix(m))
    return {module: found[module] for module in inner}


def spread(tensor: Tensor, n_rows: int) -> Tensor:
    """Expand to (n_rows, H), one row per position, even if one sequence's rows serve a whole
    batch.
    """
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows if len(rows) == n_rows else rows.repeat(n_rows // len(rows), 1)


def fit_factors(
    sources: list[Tensor], target: Tensor, constants: list[float], tolerance: float
) -> list[float] | None:
    """Find factors with which the sources, (T, H) each, sum to the target; None if there are none.

    The simplest solution is preferred, in this order: all 1; one of ``constants`` for the first
    source and 1 for every other source; least squares.

    Args:
        tolerance: the largest allowed error of the sum, relative to the target.
    """
    stacked = torch.stack([source.reshape(-1) for source in sources], dim=1)
    flat = target.reshape(-1, 1)
    solved = torch.linalg.lstsq(stacked, flat).solution[:, 0]

    def error(factors: list[float]) -> float:
        given = stacked @ torch.tensor(factors, dtype=stacked.dtype)
        return float((given - flat[:, 0]).norm() / flat.norm().clamp_min(1e-30))

    least = error(solved.tolist())
    if not least <= tolerance:
        return None
    others = [1.0] * (len(sources) - 1)
    for first in (1.0, *constants):
        if error([first, *others]) <= max(1.5 * least, 1e-7):
            return [first, *others]
    return [float(factor) for factor in solved]


def _name(index: int, rows: Tensor, looked_up: Tensor) -> str:
    """What a table is of. All tokens of one text are of the same type, 0; positions differ, or are
    counted from the mask, which is all 1."""
    if index == 0:
        return "embedding"
    is_one_row = bool((rows == rows[:1]).all())
    return "token type" if is_one_row and not bool(looked_up.any()) else "position"


def _same(a: Tensor, b: Tensor) -> bool:
    return (
        a.numel() == b.numel()
        and a.shape[-1] == b.shape[-1]
        and torch.equal(a.reshape(-1).cpu(), b.reshape(-1).cpu())
    )
