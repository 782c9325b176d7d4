"""The experiment: row by row, models that reuse, remove or write early, at equal operations.

Of one seed everything is made at once, and shared by its rows: the variances by which neurons are
ranked, the choices, one gathering of all moments, and the fits.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from projector.errors import UserError, named
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.architecture.weights import read_weights
from projector.model.architecture.widths import can_have_bias, has_output_bias, trunk_prefix
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.recipes import Recipe
from pruning.methods.plan import NotApplicable, kept_width
from pruning.refit.closed_form import LEAST_SQUARES
from pruning.reuse.comparing import compare_rows
from pruning.reuse.partners import LayerPartners, check_layers
from pruning.reuse.records import (
    DENSE,
    EARLY_WRITE,
    RANDOM_PARTNERS,
    REMOVAL,
    REUSE,
    ReuseRow,
    RowKey,
)
from pruning.reuse.replacing.choosing import count_worth_reusing
from pruning.reuse.replacing.model import replaced_model
from pruning.reuse.replacing.moments import DEFAULT_BYTES
from pruning.reuse.replacing.operations import (
    LayerOperations,
    count_products,
    dense_operations,
    total_of,
)
from pruning.reuse.replacing.seeds import SeedMaker, SeedModels
from pruning.reuse.settings import MOST_GATED, MOST_PLAIN, ReuseSettings, check_shares
from pruning.scoring.perplexity import check_scorable, score
from pruning.scoring.windows import EvaluationText
from pruning.surgery import assembled, round_weights


def plan_rows(settings: ReuseSettings) -> tuple[RowKey, ...]:
    """Every row, in the order in which they are made: the dense one, then seed by seed.

    Rows of several partners come last, for they are made only where one partner beats random ones.
    """
    keys = [RowKey(DENSE, 0.0, settings.seed)]
    for seed in settings.seeds:
        for share in settings.shares:
            keys.append(RowKey(REUSE, share, seed, 1))
            keys.append(RowKey(REMOVAL, share, seed))
            keys.append(RowKey(RANDOM_PARTNERS, share, seed, 1))
            keys.append(RowKey(EARLY_WRITE, share, seed, 1))
            keys.append(RowKey(settings.pruning_method, share, seed))
    if settings.n_partners > 1:
        for seed in settings.seeds:
            keys += [RowKey(REUSE, share, seed, settings.n_partners) for share in settings.shares]
    return tuple(keys)


def check_reusable(architecture: Architecture) -> None:
    """Raise a UserError, before any work, if a model's neurons can't be taken from others.

    Each has to be a function of its MLP's inputs that is known, so that the others can be computed
    without it.
    """
    mlps = mlps_of(architecture)
    check_layers(len(mlps))
    for layer, mlp in enumerate(mlps):
        if mlp.activation is None:
            raise UserError(
                f"no neuron of layer {layer} can be left out: the neurons of its MLP are not a "
                f"known function of its inputs; give another {named('model')}",
                setting="model",
            )


def most_share(architecture: Architecture) -> float:
    """The largest share of all MLPs' operations that reuse could save, were nothing but columns
    left of every layer but the first."""
    dense = dense_operations(architecture)
    rates = [MOST_GATED if layer.n_made_by > 1 else MOST_PLAIN for layer in dense]
    saved = sum(rate * layer.total for rate, layer in zip(rates[1:], dense[1:], strict=True))
    return saved / total_of(dense)


class Experiment:
    """Makes and scores the rows of one model.

    Args:
        loaded: with its head.
        calibration: what seeds draw from.
        text: the windows that every row is scored on.
        partners: whom neurons can take their values from.
        memory_budget: bytes that moments of several layers may take at once; None for
            :data:`pruning.reuse.replacing.moments.DEFAULT_BYTES`.

    Raises:
        UserError: if the model can't be computed so, or not scored, or a share is too large.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        architecture: Architecture,
        calibration: CalibrationText,
        text: EvaluationText,
        partners: LayerPartners,
        settings: ReuseSettings,
        *,
        memory_budget: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.loaded, self.architecture, self.settings = loaded, architecture, settings
        self._calibration, self._text, self._partners = calibration, text, partners
        self._progress = progress or Silent()
        self._n_bytes = DEFAULT_BYTES if memory_budget is None else memory_budget // 2
        check_reusable(architecture)
        partners.check([mlp.n_neurons for mlp in mlps_of(architecture)])
        check_scorable(loaded.model, text)
        check_shares(settings.shares, most_share(architecture))
        self._dense = dense_operations(architecture)
        self._with_bias = can_have_bias(loaded.model, architecture)
        self._new_constant = self._with_bias and not has_output_bias(architecture)
        self._current: SeedModels | None = None
        self._chapter: tuple[int, tempfile.TemporaryDirectory[str], LayerMaker] | None = None

    def notes(self) -> tuple[str, ...]:
        """What a reader of the rows should know."""
        found = [
            "The first layer has no earlier one, so the other layers save its share too, in every "
            "row but those of the pruning chapter, which take the same share of every layer.",
            f"Partners were found over {self._partners.n_tokens:,} tokens.",
        ]
        n_worth, n_all = count_worth_reusing(self._partners, self._dense)
        if n_all:
            least = self._dense[1].n_hidden / self._dense[1].neuron
            found.append(
                "Before any refit, reuse loses less for each operation saved than removal only "
                f"where a partner explains more than {least:.1%} of a neuron's variance: "
                f"{n_worth:,} of {n_all:,} neurons have such a partner ({n_worth / n_all:.1%})."
            )
        if self._new_constant:
            found.append(
                "Outputs of changed MLPs have a constant that the dense ones lack; its additions "
                "count as operations."
            )
        if not self._with_bias:
            found.append("The model's outputs can have no bias, so no row has a constant.")
        return tuple(found)

    def row(self, key: RowKey, made: Sequence[ReuseRow] = ()) -> ReuseRow:
        """Make one row.

        Args:
            made: rows that are there already, which are not made again with others of their seed;
                one of several partners needs those of one partner among them.

        Raises:
            UserError: if the calibration text is too short, or activations are not finite.
        """
        if key.method == DENSE:
            return self._scored(key, self.loaded.model, self._dense, 0, None, 0.0)
        try:
            if key.method == self.settings.pruning_method:
                return self._pruned(key)
            return self._replaced(key, made)
        except NotApplicable as error:
            return self._missing(key, str(error))

    def _replaced(self, key: RowKey, made: Sequence[ReuseRow]) -> ReuseRow:
        several = key.n_partners > 1
        if several and not self._one_is_better(key, made):
            return self._missing(key, "one partner is no better than random ones")
        shared = self._seed(key, made)
        name = (key.method, key.share, key.n_partners)
        layers = shared.fitted[name]
        if isinstance(layers, NotApplicable):
            raise layers
        began = time.perf_counter()
        early = key.method == EARLY_WRITE
        model = replaced_model(
            self.loaded.model,
            self.architecture,
            layers,
            writes_early=early,
            stored_dtype=self.loaded.stored_dtype,
        )
        seconds = shared.seconds[name] + time.perf_counter() - began
        operations = tuple(
            dense
            if layer is None
            else layer.choice.operations(
                dense, writes_early=early, has_new_constant=self._new_constant
            )
            for dense, layer in zip(self._dense, layers, strict=True)
        )
        there = [layer for layer in layers if layer is not None]
        n_changed = sum(len(layer.choice.replaced) for layer in there)
        r2 = torch.cat([layer.values.r2 for layer in there]) if there else torch.zeros(0)
        r2 = r2[~r2.isnan()]
        median = float(r2.median()) if len(r2) else None
        return self._scored(key, model, operations, n_changed, median, seconds)

    def _one_is_better(self, key: RowKey, made: Sequence[ReuseRow]) -> bool:
        """Whether reuse of one partner beats random ones at this share."""
        return any(
            each.wins
            for each in compare_rows(made, self.settings.pruning_method)
            if (each.share, each.against, each.n_partners) == (key.share, RANDOM_PARTNERS, 1)
        )

    def _seed(self, key: RowKey, made: Sequence[ReuseRow]) -> SeedModels:
        """What the rows of a seed share, made where it is not there."""
        several = key.n_partners > 1
        known = self._current
        name = (key.method, key.share, key.n_partners)
        if known is None or known.seed != key.seed or name not in known.fitted:
            self._current = None
            give_back()
            done = {row.key for row in made} - {key}
            names = [
                (each.method, each.share, each.n_partners)
                for each in plan_rows(self.settings)
                if each.seed == key.seed
                and each.method in (REUSE, REMOVAL, RANDOM_PARTNERS, EARLY_WRITE)
                and (each.n_partners > 1) == several
                and each not in done
            ]
            corpus = self._calibration.draw(self.settings.n_sequences, key.seed)
            known = self._maker_of_seeds().make(corpus, key.seed, names)
            self._current = known
        return known

    def _maker_of_seeds(self) -> SeedMaker:
        return SeedMaker(
            self.loaded.model,
            self.architecture,
            self._partners,
            self._dense,
            with_bias=self._with_bias,
            has_new_constant=self._new_constant,
            n_bytes=self._n_bytes,
            progress=self._progress,
        )

    def _pruned(self, key: RowKey) -> ReuseRow:
        """The best of the pruning chapter, by its own machinery: all layers give the same share."""
        recipe = self._recipe(key.share)
        maker = self._maker(key.seed)
        shapes = maker.shapes()
        shape = shapes[recipe]
        made = [each[recipe] for _, each in maker.layers(shapes)]
        began = time.perf_counter()
        mlps = mlps_of(self.architecture)
        layers = (
            each.weights(read_weights(mlp), with_bias=shape.with_bias)
            for each, mlp in zip(made, mlps, strict=True)
        )
        config = maker.config(shape)
        model = assembled(self.loaded.model, self.architecture, config, layers, shares=True)
        round_weights(model, self.loaded.stored_dtype)
        seconds = sum(each.seconds for each in made) + time.perf_counter() - began
        kept = [kept_width(mlp.n_neurons, recipe.sparsity) for mlp in mlps]
        operations = tuple(
            LayerOperations(
                dense.n_hidden,
                dense.n_made_by,
                n,
                has_new_constant=self._new_constant and shape.removes,
            )
            for dense, n in zip(self._dense, kept, strict=True)
        )
        n_changed = sum(mlp.n_neurons for mlp in mlps) - sum(kept)
        return self._scored(key, model, operations, n_changed, None, seconds)

    def _recipe(self, share: float) -> Recipe:
        """Of the pruning chapter's method: whole neurons that save at least this share."""
        total, n = total_of(self._dense), self._dense[0].n_computed
        need = share * total
        if share > 0 and self._new_constant:
            need += sum(layer.n_hidden for layer in self._dense)
        # What rounding adds to a whole number is no neuron more.
        n_removed = math.ceil(n * need / total - 1e-9)
        return Recipe(self.settings.pruning_method, LEAST_SQUARES.name, n_removed / n)

    def _maker(self, seed: int) -> LayerMaker:
        if self._chapter is None or self._chapter[0] != seed:
            corpus = self._calibration.draw(self.settings.n_sequences, seed)
            recipes = [self._recipe(share) for share in self.settings.shares]
            for recipe in recipes:
                recipe.check(self.loaded.model, self.architecture, corpus, has_proposals=False)
            folder = tempfile.TemporaryDirectory(prefix="pruning-")
            files = LayerFiles(Path(folder.name) / "layers", {"seed": seed}, recipes)
            files.begin()
            maker = LayerMaker(
                self.loaded.model,
                self.architecture,
                corpus,
                recipes,
                files,
                seed=seed,
                progress=self._progress,
            )
            self._chapter = seed, folder, maker
        return self._chapter[2]

    def _scored(
        self,
        key: RowKey,
        model: nn.Module,
        operations: Sequence[LayerOperations],
        n_changed: int,
        r2: float | None,
        seconds: float,
    ) -> ReuseRow:
        """Count what the model computes, and let it predict the text.

        Raises:
            RuntimeError: if what PyTorch counts is not what the formula says.
        """
        products = sum(layer.products for layer in operations)
        counted = count_products(model, self._names())
        if counted != products:
            raise RuntimeError(
                f"the MLPs' matrix products take {counted:,} multiply-adds a token, and the "
                f"formula says {products:,}"
            )
        found = score(model, self._text)
        each = (found.window_nats / found.window_tokens).tolist()
        problem = found.problem
        return ReuseRow(
            key.method,
            key.share,
            key.seed,
            key.n_partners,
            None if problem else found.perplexity,
            () if problem else tuple(each),
            total_of(operations),
            total_of(self._dense),
            n_changed,
            r2,
            round(seconds, 3),
            problem,
            counted,
            products,
        )

    def _names(self) -> list[str]:
        """Where the matrices of its MLPs are in a model."""
        prefix = trunk_prefix(self.loaded.model, self.architecture)
        return [
            f"{prefix}{matrix.name}"
            for mlp in mlps_of(self.architecture)
            for matrix in (*mlp.inputs, mlp.output)
        ]

    def _missing(self, key: RowKey, reason: str) -> ReuseRow:
        total = total_of(self._dense)
        return ReuseRow(
            key.method,
            key.share,
            key.seed,
            key.n_partners,
            None,
            (),
            None,
            total,
            0,
            None,
            0.0,
            reason,
        )
