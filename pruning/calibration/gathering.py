"""The moments of every layer at once, where memory holds them: of small models, for sweeps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.model.architecture.records import Architecture
from projector.model.capture import Tap, capture, evaluating, kept_rows
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import LayerMoments
from pruning.calibration.text import (
    DEFAULT_SEQUENCES,
    CalibrationText,
    check_count,
    is_held_out,
    n_fit_tokens,
)
from pruning.calibration.walk import DEFAULT_BATCH, sums_on

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Calibration:
    """The sequences drawn by one seed, and the moments of every layer's MLP neurons over them."""

    text: CalibrationText
    corpus: Corpus
    layers: tuple[LayerMoments, ...]
    batch_size: int

    def batches(self) -> Iterator[Batch]:
        """The sequences in order."""
        return self.corpus.batches(self.batch_size)

    @property
    def n_fit_tokens(self) -> int:
        """Tokens that estimates are made from."""
        return n_fit_tokens(self.corpus)


def calibrate(
    loaded: LoadedModel,
    architecture: Architecture,
    text: CalibrationText,
    *,
    n_sequences: int = DEFAULT_SEQUENCES,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> Calibration:
    """Run the model over the sequences of one seed and gather its neurons' moments.

    Every fifth sequence is held out. Costs one forward pass, and memory for one N × N matrix in
    float64 a layer; :class:`pruning.calibration.walk.Walk` holds one layer's at a time.

    Raises:
        UserError: if there are too few sequences, or the moments are not finite.
    """
    progress = progress or Silent()
    corpus = text.draw(n_sequences, seed)
    device = next(loaded.model.parameters()).device
    mlps = mlps_of(architecture)
    place = sums_on(sum(8 * mlp.n_neurons**2 for mlp in mlps), device)
    layers = tuple(LayerMoments(mlp.n_neurons, place) for mlp in mlps)
    trunk = getattr(loaded.model, "base_model", loaded.model)
    taps = {layer: architecture.blocks[layer].taps["mlp_post"] for layer in range(len(layers))}
    progress.begin("Calibrating", corpus.n_sequences, "sequences")
    for batch in corpus.batches(batch_size):
        held_out = is_held_out(batch)
        keeps = {part: batch.keep & (held_out == part)[:, None] for part in (False, True)}

        def count(layer: int, activation: Tensor, keeps: dict[bool, Tensor] = keeps) -> None:
            for part, keep in keeps.items():
                layers[layer].update(kept_rows(activation, keep), held_out=part)

        run_batch(trunk, batch, count, taps)
        progress.advance(len(batch.input_ids))
    progress.end()
    for layer, moments in enumerate(layers):
        moments.check(layer)
    return Calibration(text, corpus, layers, batch_size)


def run_batch(
    model: nn.Module, batch: Batch, consume: Callable[[Key, Tensor], None], taps: Mapping[Key, Tap]
) -> None:
    """Run the model on one batch with taps open; nothing is kept but what ``consume`` keeps."""
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model), capture(taps, consume):
        model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))


def check_enough(calibration: Calibration, widths: Sequence[int]) -> None:
    """Raise a UserError if too few tokens leave the moments of the widest layer singular.

    E[h hᵀ] over T tokens has a rank of at most T.
    """
    check_count(calibration.n_fit_tokens, calibration.corpus.n_sequences, widths)
