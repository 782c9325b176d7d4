"""The experiment: models that reuse, remove or write early at equal operations, row by row.

All rows of a seed and share are made together, and share choices, one pass for all moments, and
fits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn

from projector.corpus.batches import Corpus
from projector.errors import UserError, named
from projector.memory import give_back
from projector.model.architecture.records import Architecture
from projector.model.architecture.widths import can_have_bias, has_output_bias, trunk_prefix
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText
from pruning.methods.plan import NotApplicable
from pruning.reuse.budget import needs_of_reuse
from pruning.reuse.chapter import Chapter
from pruning.reuse.comparing import compare_rows
from pruning.reuse.partners import LayerPartners, Scales, check_layers
from pruning.reuse.records import (
    DENSE,
    EARLY_WRITE,
    MIXED,
    MIXED_RANDOM,
    RANDOM_PARTNERS,
    REMOVAL,
    REUSE,
    ReuseRow,
    RowKey,
)
from pruning.reuse.replacing.choosing import count_worth_reusing
from pruning.reuse.replacing.model import replaced_model
from pruning.reuse.replacing.moments import gather_scales
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

# Methods whose neurons are replaced here, and not by the pruning method.
_REPLACING = (MIXED, REUSE, REMOVAL, MIXED_RANDOM, RANDOM_PARTNERS, EARLY_WRITE)


def plan_rows(settings: ReuseSettings) -> tuple[RowKey, ...]:
    """All rows in the order in which they are made: the dense model, then seed by seed.

    Rows with several partners come last, because they are made only if one partner beats random
    partners.
    """
    keys = [RowKey(DENSE, 0.0, settings.seed)]
    for seed in settings.seeds:
        for share in settings.shares:
            keys.append(RowKey(MIXED, share, seed, 1))
            keys.append(RowKey(REUSE, share, seed, 1))
            keys.append(RowKey(REMOVAL, share, seed))
            keys.append(RowKey(MIXED_RANDOM, share, seed, 1))
            keys.append(RowKey(RANDOM_PARTNERS, share, seed, 1))
            keys.append(RowKey(EARLY_WRITE, share, seed, 1))
            keys.append(RowKey(settings.pruning_method, share, seed))
    if settings.n_partners > 1:
        for seed in settings.seeds:
            for share in settings.shares:
                keys.append(RowKey(REUSE, share, seed, settings.n_partners))
                keys.append(RowKey(RANDOM_PARTNERS, share, seed, settings.n_partners))
    return tuple(keys)


def check_reusable(architecture: Architecture) -> None:
    """Raise a UserError, before any work, if a model's neurons can't take values of other neurons.

    Each neuron has to be a known function of its MLP's inputs, so that others can be computed
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
    """The largest share of all MLPs' operations that reuse can save: only columns are left in every
    layer except the first.
    """
    dense = dense_operations(architecture)
    rates = [MOST_GATED if layer.n_made_by > 1 else MOST_PLAIN for layer in dense]
    saved = sum(rate * layer.total for rate, layer in zip(rates[1:], dense[1:], strict=True))
    return saved / total_of(dense)


class Experiment:
    """Makes and scores the rows of one model.

    Args:
        loaded: the model with its head.
        calibration: the text that seeds draw from.
        text: the windows that every row is scored on.
        partners: neurons that others can take their values from.
        memory_budget: bytes that may be taken besides the loaded model; None for the free memory,
            less a margin.

    Raises:
        UserError: if the model doesn't allow reuse, can't be scored, or a share is too large.
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
        self._memory_budget = memory_budget
        check_reusable(architecture)
        partners.check([mlp.n_neurons for mlp in mlps_of(architecture)])
        check_scorable(loaded.model, text)
        check_shares(settings.shares, most_share(architecture))
        self._dense = dense_operations(architecture)
        self._with_bias = can_have_bias(loaded.model, architecture)
        self._new_constant = self._with_bias and not has_output_bias(architecture)
        self._current: SeedModels | None = None
        self._scales: tuple[int, tuple[Scales, ...]] | None = None
        self._chapter = Chapter(
            loaded,
            architecture,
            calibration,
            settings,
            has_new_constant=self._new_constant,
            progress=self._progress,
        )

    def notes(self) -> tuple[str, ...]:
        """Notes for readers of the rows."""
        found = [
            "The first layer has no earlier layer, so the other layers save its share too. Rows of "
            "the pruning method are the exception: they remove the same share of every layer.",
            f"Partners were found over {self._partners.n_tokens:,} tokens.",
        ]
        partners = self._partners
        if not self._with_bias:
            partners = partners.about_zero(self._measured(self.settings.seed))
        n_worth, n_all = count_worth_reusing(partners, self._dense)
        if n_all:
            least = self._dense[1].n_hidden / self._dense[1].neuron
            of = "variance" if self._with_bias else "second moment"
            found.append(
                "Before any refit, reuse loses less than removal for each saved operation only if "
                f"a partner explains more than {least:.1%} of a neuron's {of}, or another neuron "
                f"already uses its column: {n_worth:,} of {n_all:,} neurons have such a partner "
                f"({n_worth / n_all:.1%})."
            )
        if self._new_constant:
            found.append(
                "Outputs of changed MLPs have a constant that outputs of dense MLPs lack; its "
                "additions count as operations."
            )
        if not self._with_bias:
            found.append(
                "The MLPs' outputs can't have a bias in this model, so no row has a constant, and "
                "moments are taken about zero."
            )
        return tuple(found)

    def row(self, key: RowKey, made: Sequence[ReuseRow] = ()) -> ReuseRow:
        """Make one row.

        Args:
            made: existing rows, which are not made again with others of their seed; a row with
                several partners needs the rows with one partner.

        Raises:
            UserError: if the calibration text is too short, or activations are not finite.
        """
        if key.method == DENSE:
            return self._scored(key, self.loaded.model, self._dense, (0, 0), None, 0.0)
        try:
            if key.method == self.settings.pruning_method:
                return self._pruned(key)
            return self._replaced(key, made)
        except NotApplicable as error:
            return self._missing(key, str(error))

    def _replaced(self, key: RowKey, made: Sequence[ReuseRow]) -> ReuseRow:
        several = key.n_partners > 1
        if several and not self._one_is_better(key, made):
            return self._missing(key, "one partner isn't better than random partners")
        shared = self._seed(key, made)
        name = (key.method, key.share, key.n_partners)
        began = time.perf_counter()
        layers = shared.layers(name)
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
        n_reused = sum(layer.choice.n_reused for layer in there)
        n_removed = sum(layer.choice.n_removed for layer in there)
        r2 = torch.cat([layer.values.r2 for layer in there]) if there else torch.zeros(0)
        r2 = r2[~r2.isnan()]
        median = float(r2.median()) if len(r2) else None
        del layers, there
        return self._scored(key, model, operations, (n_reused, n_removed), median, seconds)

    def _one_is_better(self, key: RowKey, made: Sequence[ReuseRow]) -> bool:
        """Whether reuse with one partner beats random partners at this share."""
        return any(
            each.wins
            for each in compare_rows(made, self.settings.pruning_method)
            if (each.method, each.against) == (REUSE, RANDOM_PARTNERS)
            and (each.share, each.n_partners) == (key.share, 1)
        )

    def _seed(self, key: RowKey, made: Sequence[ReuseRow]) -> SeedModels:
        """The shared data of a seed's and share's rows, made if missing."""
        known = self._current
        name = (key.method, key.share, key.n_partners)
        if known is None or known.seed != key.seed or name not in known.files:
            # One share at a time, because moments grow with the square of all partners of its rows.
            self._current = known = None
            give_back()
            done = {row.key for row in made} - {key}
            names = [
                (each.method, each.share, each.n_partners)
                for each in plan_rows(self.settings)
                if (each.seed, each.share) == (key.seed, key.share)
                and each.method in _REPLACING
                and (each.n_partners > 1) == (key.n_partners > 1)
                and each not in done
            ]
            known = self._maker_of_seeds().make(
                self._drawn(key.seed), self._measured(key.seed), key.seed, names
            )
            self._current = known
        return known

    def _drawn(self, seed: int) -> Corpus:
        return self._calibration.draw(self.settings.n_sequences, seed)

    def _measured(self, seed: int) -> tuple[Scales, ...]:
        """Mean and variance of all neurons over the sequences that a seed draws."""
        if self._scales is None or self._scales[0] != seed:
            scales = gather_scales(
                self.loaded.model,
                self.architecture,
                self._drawn(seed),
                progress=self._progress,
            )
            self._scales = seed, scales
        return self._scales[1]

    def _maker_of_seeds(self) -> SeedMaker:
        needs = needs_of_reuse(
            self.loaded.model,
            self.architecture,
            self._drawn(self.settings.seed),
            self._text,
            self.settings,
        )
        return SeedMaker(
            self.loaded.model,
            self.architecture,
            self._partners,
            self._dense,
            with_bias=self._with_bias,
            has_new_constant=self._new_constant,
            n_bytes=needs.within(self._memory_budget).sums,
            progress=self._progress,
        )

    def _pruned(self, key: RowKey) -> ReuseRow:
        """The pruning method's model: all layers give the same share."""
        made = self._chapter.pruned(key.share, key.seed)
        changed = (0, made.n_removed)
        return self._scored(key, made.model, made.operations, changed, None, made.seconds)

    def _scored(
        self,
        key: RowKey,
        model: nn.Module,
        operations: Sequence[LayerOperations],
        changed: tuple[int, int],
        r2: float | None,
        seconds: float,
    ) -> ReuseRow:
        """Count the model's operations, and score it on the text.

        Args:
            changed: numbers of reused and of removed neurons.

        Raises:
            RuntimeError: if PyTorch's count differs from the formula.
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
            sum(changed),
            r2,
            round(seconds, 3),
            problem,
            counted,
            products,
            *changed,
        )

    def _names(self) -> list[str]:
        """The names of the matrices of a model's MLPs."""
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
