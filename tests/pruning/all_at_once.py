"""Plans and refits made with the moments of all layers at once: what layer by layer must equal."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.model.architecture.widths import can_have_bias, config_with_widths
from projector.model.capture import Tap, capture, evaluating, kept_rows
from projector.model.loading import LoadedModel
from projector.progress import Progress
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import LayerMoments
from pruning.calibration.text import (
    CalibrationText,
    check_count,
    is_held_out,
    n_fit_tokens,
)
from pruning.calibration.walk import DEFAULT_BATCH, sums_on
from pruning.limits import DEFAULT_SEQUENCES
from pruning.methods.method import Layer, Method, Proposals
from pruning.methods.plan import LayerPlan, PruningPlan, kept_width
from pruning.methods.planning import (
    check_allocates,
    check_options,
    check_projection,
    costs_of,
    global_widths,
    plan_layer,
)
from pruning.methods.registry import method_named
from pruning.refit.products import Products
from pruning.refit.reconstruction import check_reconstructable
from pruning.refit.refits import RunProducts, check_has_bias, kept_products, refit_output, train
from pruning.refit.registry import refit_named
from pruning.refit.streams import DenseStreams
from pruning.surgery import apply_plan, write_weights

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
) -> Calibration:
    """Run the model over the sequences of one seed and gather its neurons' moments.

    Every fifth sequence is held out.

    Raises:
        UserError: if there are too few sequences, or the moments are not finite.
    """
    corpus = text.draw(n_sequences, seed)
    device = next(loaded.model.parameters()).device
    mlps = mlps_of(architecture)
    place = sums_on(sum(8 * mlp.n_neurons**2 for mlp in mlps), device)
    layers = tuple(LayerMoments(mlp.n_neurons, place) for mlp in mlps)
    trunk = getattr(loaded.model, "base_model", loaded.model)
    taps = {layer: architecture.blocks[layer].taps["mlp_post"] for layer in range(len(layers))}
    for batch in corpus.batches(batch_size):
        held_out = is_held_out(batch)
        keeps = {part: batch.keep & (held_out == part)[:, None] for part in (False, True)}

        def count(layer: int, activation: Tensor, keeps: dict[bool, Tensor] = keeps) -> None:
            for part, keep in keeps.items():
                layers[layer].update(kept_rows(activation, keep), held_out=part)

        run_batch(trunk, batch, count, taps)
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


@dataclass
class Planner:
    """Makes plans for one model from one calibration; what plans share is computed once.

    Attributes:
        proposals: of each layer, who may stand in for whom; for methods that read a projection.
        seed: of everything random in a plan.
    """

    model: nn.Module
    architecture: Architecture
    calibration: Calibration
    proposals: tuple[Proposals, ...] | None = None
    seed: int = 0
    _layers: dict[tuple[int, bool], Layer] = field(default_factory=dict)
    _plans: dict[tuple[str, int, int, bool], LayerPlan] = field(default_factory=dict)

    def plan(
        self,
        method: str,
        sparsity: float,
        *,
        allocation: str = "uniform",
        round_to: int = 1,
        centred: bool = False,
    ) -> PruningPlan:
        """Decide which neurons of every layer stay.

        Args:
            method: one of :data:`pruning.methods.registry.METHODS`.
            sparsity: share of the neurons to remove, in [0, 1).
            allocation: ``uniform``, the same width in every layer; or ``global``, where layers that
                lose little by it give more.
            round_to: widths are multiples of it.
            centred: a bias will absorb what removed neurons give on average.

        Raises:
            UserError: if the model can't hold the widths, the calibration text is too short, or
                there is no projection for a method that reads one.
        """
        check_options(method, sparsity, allocation, round_to)
        record = method_named(method)
        mlps = mlps_of(self.architecture)
        widths = [mlp.n_neurons for mlp in mlps]
        if sparsity > 0:
            check_projection((method,), is_given=self.proposals is not None)
            if record.needs_regular_moments:
                check_enough(self.calibration, widths)
        if allocation == "global":
            kept = self._allocate(record, sparsity, round_to, centred)
        else:
            kept = [kept_width(n, sparsity, round_to) for n in widths]
        config_with_widths(self.model, self.architecture, kept)
        layers = tuple(self._plan_layer(record, layer, n, centred) for layer, n in enumerate(kept))
        return PruningPlan(method, sparsity, self.seed, allocation, round_to, layers)

    def _plan_layer(self, method: Method, layer: int, n_kept: int, centred: bool) -> LayerPlan:
        key = (method.name, layer, n_kept, centred)
        if key not in self._plans:
            self._plans[key] = plan_layer(method, self._layer(layer, centred), n_kept)
        return self._plans[key]

    def _layer(self, index: int, centred: bool) -> Layer:
        key = (index, centred)
        if key not in self._layers:
            self._layers[key] = Layer(
                index=index,
                mlp=mlps_of(self.architecture)[index],
                calibrated=self.calibration.layers[index],
                centred=centred,
                seed=self.seed,
                proposals=None if self.proposals is None else self.proposals[index],
            )
        return self._layers[key]

    def _allocate(self, method: Method, sparsity: float, round_to: int, centred: bool) -> list[int]:
        """Widths that remove the cheapest neurons of all layers together."""
        check_allocates(method)
        layers = range(len(mlps_of(self.architecture)))
        costs = [costs_of(method, self._layer(index, centred)) for index in layers]
        return global_widths(costs, sparsity, round_to)


def make_plan(
    planner: Planner, method: str, kind: str, sparsity: float, allocation: str, round_to: int
) -> PruningPlan:
    """The plan for a refit: about the mean where a bias will absorb it, else about zero."""
    return planner.plan(
        method,
        sparsity,
        allocation=allocation,
        round_to=round_to,
        centred=is_centred(planner, kind),
    )


def is_centred(planner: Planner, kind: str) -> bool:
    """Whether a refit's bias will absorb what removed neurons give on average."""
    changes = refit_named(kind).changes_weights
    return changes and can_have_bias(planner.model, planner.architecture)


def refit(
    model: nn.Module,
    architecture: Architecture,
    plan: PruningPlan,
    kind: str,
    calibration: Calibration,
    *,
    n_steps: int = 200,
    seed: int = 0,
    streams: DenseStreams | None = None,
    progress: Progress | None = None,
) -> Any:
    """A pruned copy of ``model``, refitted."""
    record = refit_named(kind)
    mlps = mlps_of(architecture)
    with_bias = record.changes_weights and can_have_bias(model, architecture)
    check_has_bias(record, model, architecture)
    averaged = any(layer.groups for layer in plan.layers)
    if record.trains or (averaged and record.changes_weights):
        check_reconstructable(architecture)
    if not record.changes_weights or plan.changes_nothing:
        return apply_plan(model, plan, architecture=architecture)
    if record.needs_regular_moments:
        check_enough(calibration, plan.widths)
    if record.trains:
        if streams is None:
            corpus, batch_size = calibration.corpus, calibration.batch_size
            streams = DenseStreams(model, architecture, corpus, batch_size=batch_size)
        options: dict[str, Any] = {"n_steps": n_steps, "seed": seed, "progress": progress}
        return train(model, architecture, plan, kind, streams, **options)
    pruned = apply_plan(model, plan, architecture=architecture, with_bias=with_bias)
    inner = find_architecture(pruned)
    products = _run_products(model, architecture, inner, calibration) if averaged else None
    for layer, mlp in enumerate(mlps_of(inner)):
        if len(plan.layers[layer].kept) == plan.layers[layer].n_neurons:
            continue
        dense, weights = read_weights(mlps[layer]), read_weights(mlp)
        found = (
            products[layer]
            if products is not None
            else kept_products(calibration.layers[layer], plan.layers[layer], dense)
        )
        output, bias = refit_output(record, dense, weights.output, found, with_bias)
        write_weights(pruned, inner, layer, replace(weights, output=output, output_bias=bias))
    return pruned


def _run_products(
    model: nn.Module, architecture: Architecture, pruned: Architecture, calibration: Calibration
) -> list[tuple[Products, Products]]:
    """The products of neurons that the dense model does not have: one more pass over the text."""
    mlps = mlps_of(architecture)
    new = [
        RunProducts(*pair) for pair in zip(mlps, map(read_weights, mlps_of(pruned)), strict=True)
    ]
    taps: dict[tuple[int, str], Tap] = {}
    for layer, mlp in enumerate(mlps):
        taps[layer, "x"] = Tap(mlp.inputs[0].module, "input")
        taps[layer, "h"] = Tap(mlp.output.module, "input")
    trunk = getattr(model, "base_model", model)
    for batch in calibration.batches():
        read: dict[int, Tensor] = {}

        def count(
            key: tuple[int, str],
            tensor: Tensor,
            batch: Batch = batch,
            read: dict[int, Tensor] = read,
        ) -> None:
            layer, what = key
            if what == "x":
                # Copied: the model may go on to change it in place.
                read[layer] = tensor.clone()
                return
            new[layer].add(batch, read.pop(layer), tensor)

        run_batch(trunk, batch, count, taps)
    return [each.both() for each in new]
