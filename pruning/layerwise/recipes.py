"""A recipe, which is a method, a share and a refit for every layer, and the layers made from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from projector.corpus.batches import Corpus
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import MlpWeights
from projector.model.architecture.widths import config_with_widths
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import check_count, n_fit_tokens
from pruning.methods.method import Method
from pruning.methods.plan import LayerPlan, kept_width
from pruning.methods.planning import check_allocates, check_options, check_projection
from pruning.methods.registry import method_named
from pruning.refit.reconstruction import check_reconstructable
from pruning.refit.record import Refit
from pruning.refit.refits import check_has_bias
from pruning.refit.registry import refit_named
from pruning.surgery import merged


@dataclass(frozen=True)
class Recipe:
    """A plan and a refit that every layer is made with."""

    method: str
    refit: str
    sparsity: float
    allocation: str = "uniform"
    round_to: int = 1

    @property
    def of_method(self) -> Method:
        return method_named(self.method)

    @property
    def of_refit(self) -> Refit:
        return refit_named(self.refit)

    @property
    def needs_regular_moments(self) -> bool:
        """Whether it inverts moments, which too few calibration tokens leave singular."""
        return self.sparsity > 0 and (
            self.of_method.needs_regular_moments or self.of_refit.needs_regular_moments
        )

    def check(
        self, model: nn.Module, architecture: Architecture, corpus: Corpus, *, has_proposals: bool
    ) -> None:
        """Raise a UserError, before any work, if the recipe is impossible for this model or this
        text.

        Raises NotApplicable if the architecture doesn't support it.
        """
        check_options(self.method, self.sparsity, self.allocation, self.round_to)
        check_has_bias(self.of_refit, model, architecture)
        averages = self.of_method.averages and self.of_refit.changes_weights
        if self.of_refit.trains or averages:
            check_reconstructable(architecture)
        widths = [mlp.n_neurons for mlp in mlps_of(architecture)]
        if self.sparsity > 0:
            check_projection((self.method,), is_given=has_proposals)
            if self.needs_regular_moments:
                check_count(n_fit_tokens(corpus), corpus.n_sequences, widths)
        if self.allocation == "global":
            check_allocates(self.of_method)

    def uniform_widths(self, widths: Sequence[int]) -> list[int]:
        """Number of neurons that stay in each layer if all layers give the same share."""
        return [kept_width(n, self.sparsity, self.round_to) for n in widths]


@dataclass(frozen=True)
class Shape:
    """How a recipe cuts a model: the neurons that stay, and whether outputs get biases.

    Attributes:
        widths: number of neurons that stay in each layer.
        with_bias: whether the cut model's outputs have biases.
        centred: whether a bias absorbs the mean output of removed neurons.
        removes: whether any neuron is removed.
    """

    widths: tuple[int, ...]
    with_bias: bool
    centred: bool
    removes: bool

    @classmethod
    def of(
        cls, architecture: Architecture, recipe: Recipe, widths: Sequence[int], *, has_bias: bool
    ) -> Shape:
        """The shape of a model that will be cut to these widths.

        Args:
            has_bias: whether the model can have a bias, see
                :func:`projector.model.architecture.widths.can_have_bias`.
        """
        centred = recipe.of_refit.changes_weights and has_bias
        removes = any(
            mlp.n_neurons != n for mlp, n in zip(mlps_of(architecture), widths, strict=True)
        )
        return cls(tuple(widths), centred and removes, centred, removes)

    def config(self, model: nn.Module, architecture: Architecture) -> Any:
        """The config of the cut model; found before any layer is cut.

        Raises:
            UserError: if no config holds these widths.
        """
        return config_with_widths(model, architecture, self.widths, with_bias=self.with_bias)


@dataclass(frozen=True)
class MadeLayer:
    """A made layer: its plan, and the result of a closed-form refit.

    Attributes:
        output: (H, K) in the model's dtype; None if the weights stay as the plan leaves them.
        output_bias: (H,), or None without a bias.
        seconds: time for planning and refitting; shared work is counted for each recipe.
    """

    plan: LayerPlan
    output: Tensor | None = None
    output_bias: Tensor | None = None
    seconds: float = 0.0

    def weights(self, dense: MlpWeights, *, with_bias: bool) -> MlpWeights:
        """The layer's weights, cut and refitted; on the CPU.

        Args:
            dense: its weights before pruning.
            with_bias: give the output a bias of zeros if it has none.
        """
        cut = merged(dense.to("cpu"), self.plan)
        if with_bias and cut.output_bias is None:
            cut = replace(cut, output_bias=cut.output.new_zeros(len(cut.output)))
        if self.output is None:
            return cut
        bias = cut.output_bias if self.output_bias is None else self.output_bias
        return replace(cut, output=self.output, output_bias=bias)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that don't belong to the plan, by the names of their fields."""
        found = {"output": self.output, "output_bias": self.output_bias}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def problem(self, shape: torch.Size) -> str | None:
        """Why it doesn't fit a layer whose output projection has this shape; None if it fits."""
        if self.plan.n_neurons != shape[1]:
            return f"its plan is for {self.plan.n_neurons:,} neurons"
        if self.output is not None and self.output.shape != (shape[0], len(self.plan.kept)):
            return f"its output projection is of shape {tuple(self.output.shape)}"
        return self.plan.problem()
