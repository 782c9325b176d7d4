"""Find each MLP neuron's partners: the neurons of earlier layers that correlate with it most."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from projector.corpus.batches import Corpus
from projector.errors import UserError, named
from projector.fitting.cross_layer.finding import Finding
from projector.fitting.settings import FitSettings
from projector.memory import free_memory
from projector.model.architecture.records import Architecture
from projector.model.loading import LoadedModel, input_device, is_spread, widest_dtype
from projector.progress import Progress, Silent
from projector.projection.projection import Projection
from projector.sites import map_name
from projector.statistics.cross_layer.partners import PartnerList, Partners
from projector.statistics.cross_layer.plan import CrossLayerPlan, plan_cross_layer
from projector.statistics.cross_layer.records import SITE
from pruning.calibration.mlps import mlps_of
from pruning.calibration.walk import DEFAULT_BATCH

DEFAULT_TOKENS = FitSettings().cross_layer_tokens


@dataclass(frozen=True)
class Scales:
    """Mean and variance of one layer's neurons over a text.

    Attributes:
        mean, variance: (N,) float64.
    """

    mean: Tensor
    variance: Tensor

    def power(self, *, centred: bool) -> Tensor:
        """Var(h_j) if ``centred``, else E[h_j²]; (N,) float64."""
        return self.variance if centred else self.variance + self.mean**2


@dataclass(frozen=True)
class LayerPartners:
    """The best partners of every layer's neurons, in all earlier layers.

    Attributes:
        layers: (N, 8) partners for each layer, the strongest first; the first layer has none.
        n_tokens: number of tokens that they were found from.
    """

    layers: tuple[PartnerList, ...]
    n_tokens: int

    def check(self, widths: Sequence[int]) -> None:
        """Raise a UserError unless the partners belong to a model with these widths.

        Args:
            widths: number of neurons in every layer.
        """
        own = [len(each.rho) for each in self.layers]
        if own != list(widths):
            raise UserError(
                f"the partners belong to layers with {own} neurons, and this model's layers have "
                f"{list(widths)}: give a projection of this model, with all its layers",
                setting="projection",
            )

    def about_zero(self, scales: Sequence[Scales]) -> LayerPartners:
        """The same partners, ranked by the cosine of their second moments instead of the
        correlation:

            cos_jp = (ρ_jp σ_j σ_p + m_j m_p) / √((σ_j² + m_j²) (σ_p² + m_p²)),

        the largest first. It measures how well a fit without a constant predicts from a partner.

        Args:
            scales: mean and variance of every layer's neurons.
        """
        width = max(len(each.mean) for each in scales)
        means, deviations = torch.zeros(2, len(scales), width, dtype=torch.float64)
        for i, each in enumerate(scales):
            means[i, : len(each.mean)] = each.mean
            deviations[i, : len(each.mean)] = each.variance.sqrt()
        found = []
        for i, own in enumerate(self.layers):
            m, s = (each[i, : len(own.rho), None] for each in (means, deviations))
            of = own.layer.long().clamp(min=0), own.neuron.long().clamp(min=0)
            m_of, s_of = means[of], deviations[of]
            whole = (m**2 + s**2) * (m_of**2 + s_of**2)
            cosine = (own.rho.double() * s * s_of + m * m_of) / whole.sqrt()
            cosine = torch.where(whole > 0, cosine.clamp(-1, 1), torch.nan)
            # NaN comes last.
            order = (-cosine.abs()).nan_to_num(nan=torch.inf).argsort(dim=1, stable=True)
            parts = (cosine.to(own.rho.dtype), own.layer, own.neuron)
            found.append(PartnerList(*(part.gather(1, order) for part in parts)))
        return LayerPartners(tuple(found), self.n_tokens)


def partners_from(projection: Path) -> LayerPartners:
    """Read the partners that a projection holds.

    Raises:
        UserError: if it holds no partners, or not for all layers up to its last one.
    """
    found = Projection.load(projection)
    layers = [layer for layer, site in found.maps if site == SITE]
    if sorted(layers) != list(range(len(layers))):
        raise UserError(
            f"projection '{projection}' lacks {SITE} of some layers: make one of all layers",
            setting="projection",
            value=str(projection),
        )
    earlier = tuple(found.partners(layer).earlier for layer in sorted(layers))
    # Without partners, the line above has raised an error.
    assert found.cross_layer is not None
    return LayerPartners(earlier, found.cross_layer.n_tokens)


def plan_partners(
    loaded: LoadedModel,
    architecture: Architecture,
    corpus: Corpus,
    *,
    most_tokens: int = DEFAULT_TOKENS,
    batch_size: int = DEFAULT_BATCH,
    memory_budget: int | None = None,
) -> CrossLayerPlan:
    """Plan the search for partners in a text: its memory and tiles.

    As in a fit, the first position of each sequence does not count for a causal model.

    Args:
        corpus: whole sequences are read, drawn evenly.
        most_tokens: maximum number of tokens.
        memory_budget: bytes that may be taken besides the model; None for the free memory, less a
            margin.

    Raises:
        UserError: if the model has fewer than two layers, or memory is short.
    """
    mlps = mlps_of(architecture)
    check_layers(len(mlps))
    if architecture.is_causal and corpus.skip_first == 0:
        lengths = np.diff(corpus.starts)
        corpus = replace(corpus, skip_first=1, n_tokens=int((lengths - 1).clip(min=0).sum()))
    trunk = getattr(loaded.model, "base_model", loaded.model)
    n_positions = min(batch_size, corpus.n_sequences) * int(np.diff(corpus.starts).max())
    return plan_cross_layer(
        corpus,
        {layer: mlp.n_neurons for layer, mlp in enumerate(mlps)},
        most_tokens=most_tokens,
        n_positions=n_positions,
        itemsize=widest_dtype(trunk).itemsize,
        widest=max(max(block.widths.values()) for block in architecture.blocks),
        budget=memory_budget,
        free=free_memory(input_device(trunk), spread=is_spread(trunk)),
    )


def gather_partners(
    loaded: LoadedModel,
    architecture: Architecture,
    corpus: Corpus,
    *,
    most_tokens: int = DEFAULT_TOKENS,
    batch_size: int = DEFAULT_BATCH,
    memory_budget: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> LayerPartners:
    """Find partners in a text, as a fit with partners across layers does.

    Args:
        corpus, most_tokens, batch_size, memory_budget: see :func:`plan_partners`.
        folder: keeps activations on disk meanwhile; a stopped run resumes from this folder. None
            for a temporary folder.

    Raises:
        UserError: if the model has fewer than two layers, or memory is short.
    """
    plan = plan_partners(
        loaded,
        architecture,
        corpus,
        most_tokens=most_tokens,
        batch_size=batch_size,
        memory_budget=memory_budget,
    )
    trunk = getattr(loaded.model, "base_model", loaded.model)
    taps = {layer: architecture.blocks[layer].taps[SITE] for layer in plan.layers}
    made = tempfile.TemporaryDirectory(prefix="projector-") if folder is None else None
    with made or nullcontext(str(folder)) as place:
        found = Finding(
            trunk,
            taps,
            plan,
            Path(place),
            batch_size=batch_size,
            run={"model": loaded.weights_sha256},
            progress=progress or Silent(),
        ).find()
    own = (Partners.of_file(found.tensors, map_name(layer, SITE)) for layer in plan.layers)
    return LayerPartners(tuple(each.earlier for each in own), found.facts.n_tokens)


def check_layers(n_layers: int) -> None:
    """Raise a UserError if a model has only one layer."""
    if n_layers < 2:
        raise UserError(
            f"the model has {n_layers} layer, so there is no earlier layer to take values from: "
            f"give {named('model')} with two layers or more",
            setting="model",
        )
