"""Make the rows of a sweep: layers once for all plans and refits of a seed, then scored models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from torch import nn

from projector.errors import UserError
from projector.memory import give_back
from projector.model.architecture.weights import read_weights
from projector.progress import Progress
from projector.storage.replacing import remove_folder
from pruning.calibration.budget import pruning_memory
from pruning.calibration.mlps import mlps_of
from pruning.layerwise.budget import Needs, needs_of, within
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.recipes import Recipe
from pruning.methods.plan import NotApplicable, PruningPlan
from pruning.refit.refits import train
from pruning.refit.streams import DenseStreams
from pruning.scoring.perplexity import score
from pruning.scoring.windows import EvaluationText
from pruning.surgery import assembled, count_parameters, round_weights
from pruning.sweep.job import SweepJob
from pruning.sweep.report import DENSE, NOT_APPLICABLE, SAMPLE, Row
from pruning.sweep.settings import SweepSettings
from pruning.sweep.tasks import Combination, Task


def recipes_of(settings: SweepSettings) -> list[Recipe]:
    """The recipes of a sweep for each seed."""
    return [
        Recipe(method, kind, sparsity, settings.allocation, settings.round_to)
        for method in settings.methods
        for kind in settings.refits
        for sparsity in settings.sparsities
        if sparsity > 0
    ]


def needs_of_sweep(job: SweepJob, n_workers: int = 1) -> Needs:
    """Memory that one process of a sweep needs besides its model, and disk that all need.

    Call it once, in the process that starts the others, because less memory is free when they run.

    Raises:
        UserError: if one layer does not fit.
    """
    corpus = job.calibration.draw(job.settings.n_sequences, 0)
    recipes = recipes_of(job.settings)
    needs = needs_of(job.loaded.model, job.architecture, corpus, recipes, of_sweep=True)
    if job.wholes:
        # Winners are known once all seeds are scored, and are made from their layers.
        needs = replace(needs, disk=job.settings.n_seeds * needs.disk)
    budget = None if job.request is None else job.request.memory_budget
    return within(needs, budget, n_at_once=n_workers)


class Workbench:
    """Makes the layers and rows of a sweep.

    Args:
        folder: keeps layers until the sweep is done.
        spilled: keep streams on disk, see :func:`needs_of_sweep`.
    """

    def __init__(self, job: SweepJob, folder: Path, *, spilled: bool = False) -> None:
        self.job, self.folder, self._spilled = job, folder, spilled
        self._makers: dict[int, LayerMaker] = {}
        self._streams: tuple[int, DenseStreams] | None = None
        self._problems: dict[tuple[Recipe, int], NotApplicable | None] = {}

    def prepare(self, seed: int) -> LayerMaker:
        """The maker of a seed's layers; deletes layers that another sweep has left there."""
        maker = self.maker(seed)
        if maker.files.is_begun and maker.files.difference() is not None:
            maker.files.remove()
        maker.files.begin()
        return maker

    def make(self, seed: int, layers: Sequence[int], progress: Progress | None = None) -> None:
        """Make these layers of a seed for all recipes."""
        with pruning_memory(self.job.architecture):
            self.maker(seed, progress).make(layers)

    def gather_costs(
        self, seed: int, layers: Sequence[int], progress: Progress | None = None
    ) -> None:
        """Find the costs of removals from these layers, if recipes compare layers."""
        with pruning_memory(self.job.architecture):
            self.maker(seed, progress).gather_costs(layers)

    def maker(self, seed: int, progress: Progress | None = None) -> LayerMaker:
        """The object that prunes layers with the calibration texts of a seed."""
        if seed not in self._makers:
            job = self.job
            corpus = job.calibration.draw(job.settings.n_sequences, seed)
            recipes = [
                recipe for recipe in recipes_of(job.settings) if self._problem(recipe, seed) is None
            ]
            facts = json.loads(json.dumps({**job.facts(), "model": job.model_facts()}))
            files = LayerFiles(_folder_of(self.folder, seed), {**facts, "seed": seed}, recipes)
            self._makers[seed] = LayerMaker(
                job.loaded.model,
                job.architecture,
                corpus,
                recipes,
                files,
                seed=seed,
                proposals=job.proposals,
                spill=files.folder if self._spilled else None,
            )
        maker = self._makers[seed]
        maker.show(progress)
        return maker

    def rows(self, task: Task) -> list[Row]:
        """A row for each refit and evaluation text, for a seed whose layers have been made."""
        texts = self.job.samples if task.windows == SAMPLE else self.job.wholes
        with pruning_memory(self.job.architecture):
            result: list[Row] = []
            for combination in task.combinations:
                result += self._rows(combination, texts, task.windows)
            return result

    def _rows(
        self, combination: Combination, texts: Sequence[EvaluationText], windows: str
    ) -> list[Row]:
        try:
            model, seconds = self._model(combination)
        except NotApplicable as error:
            return [_missing(combination, text, windows, error) for text in texts]
        return [_scored(self.job, combination, model, text, windows, seconds) for text in texts]

    def _problem(self, recipe: Recipe, seed: int) -> NotApplicable | None:
        """Why a recipe is impossible for this model; None if it is possible."""
        if (recipe, seed) not in self._problems:
            job = self.job
            corpus = job.calibration.draw(job.settings.n_sequences, seed)
            found = None
            try:
                recipe.check(
                    job.loaded.model,
                    job.architecture,
                    corpus,
                    has_proposals=job.proposals is not None,
                )
            except NotApplicable as error:
                found = error
            self._problems[recipe, seed] = found
        return self._problems[recipe, seed]

    def _model(self, combination: Combination) -> tuple[nn.Module, float]:
        """The pruned model, as it would be saved, and the seconds of planning and refitting.

        It shares the memory of all weights except the MLPs' with the dense model.
        """
        method, kind, sparsity, seed = combination
        job, settings = self.job, self.job.settings
        if method == DENSE:
            return job.loaded.model, 0.0
        recipe = Recipe(method, kind, sparsity, settings.allocation, settings.round_to)
        problem = self._problem(recipe, seed)
        if problem is not None:
            raise problem
        maker = self.maker(seed)
        shape = maker.shapes()[recipe]
        mlps = mlps_of(job.architecture)
        made = [maker.files.read(layer, recipe)[recipe] for layer in range(len(mlps))]
        seconds = sum(each.seconds for each in made)
        began = perf_counter()
        if recipe.of_refit.trains and shape.removes:
            plan = PruningPlan(
                method,
                sparsity,
                seed,
                settings.allocation,
                settings.round_to,
                tuple(each.plan for each in made),
            )
            streams = self._streams_of(seed)
            streams.run()
            # All methods share this time, so it isn't counted for any of them.
            began = perf_counter()
            pruned = train(
                job.loaded.model,
                job.architecture,
                plan,
                kind,
                streams,
                n_steps=settings.n_steps,
                seed=seed,
                shares=True,
            )
        else:
            layers = (
                each.weights(read_weights(mlp), with_bias=shape.with_bias)
                for each, mlp in zip(made, mlps, strict=True)
            )
            config = maker.config(shape)
            pruned = assembled(job.loaded.model, job.architecture, config, layers, shares=True)
        round_weights(pruned, job.loaded.stored_dtype)
        return pruned, seconds + perf_counter() - began

    def _streams_of(self, seed: int) -> DenseStreams:
        if self._streams is None or self._streams[0] != seed:
            self._streams = None
            give_back()
            job = self.job
            corpus = job.calibration.draw(job.settings.n_sequences, seed)
            self._streams = seed, DenseStreams(job.loaded.model, job.architecture, corpus)
        return self._streams[1]


def remove_layers(folder: Path, seed: int | None = None) -> None:
    """Delete the layers of a finished seed, or of all seeds when the sweep ends or starts over."""
    remove_folder(folder if seed is None else _folder_of(folder, seed))


def _folder_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}"


def _scored(
    job: SweepJob,
    combination: Combination,
    model: nn.Module,
    text: EvaluationText,
    windows: str,
    seconds: float,
) -> Row:
    method, kind, sparsity, seed = combination
    n_dense, n_left = count_parameters(job.loaded.model), count_parameters(model)
    found = score(model, text)
    problem = found.problem
    return Row(
        method=method,
        refit=kind,
        sparsity=sparsity,
        seed=seed,
        evaluation=text.source,
        windows=windows,
        perplexity=None if problem else found.perplexity,
        bits_per_byte=None if problem else found.bits_per_byte,
        n_tokens=found.n_tokens,
        parameters=n_left,
        removed_share=1 - n_left / n_dense,
        seconds=round(seconds, 3),
        reason=problem or "",
    )


def _missing(combination: Combination, text: EvaluationText, windows: str, error: UserError) -> Row:
    method, kind, sparsity, seed = combination
    return Row(
        method=method,
        refit=kind,
        sparsity=sparsity,
        seed=seed,
        evaluation=text.source,
        windows=windows,
        perplexity=None,
        bits_per_byte=None,
        n_tokens=0,
        parameters=None,
        removed_share=None,
        seconds=None,
        status=NOT_APPLICABLE,
        reason=str(error),
    )
