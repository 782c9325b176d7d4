"""Place hidden states of one or two prompts as particles over the layers, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from projector.corpus.sources import read_documents
from projector.errors import SettingError, UserError, check_text, named
from projector.memory import out_of_memory
from projector.model.loading import LoadedModel, count_layers
from projector.progress import Progress, Silent
from projector.projection.provenance import versions
from projector.residual.particles.autoencoder.artifact import Trained, place_of_autoencoder
from projector.residual.particles.autoencoder.cloud import particle_cloud
from projector.residual.particles.autoencoder.gathering import LONGEST
from projector.residual.particles.autoencoder.training import train_autoencoder
from projector.residual.particles.fidelity.measuring import measure_fidelity
from projector.residual.particles.fidelity.shuffling import place_shuffled
from projector.residual.particles.near import nearest
from projector.residual.particles.pairing.comparing import compare
from projector.residual.particles.pairing.records import Pair
from projector.residual.particles.predictions import MOST_TOKENS, predict_tokens
from projector.residual.particles.records import (
    Cloud,
    LayerTime,
    Predictions,
    PromptTokens,
)
from projector.residual.particles.reduction.joint import reduce
from projector.residual.particles.reduction.registry import find_reduction
from projector.residual.particles.settings import ParticleSettings, check_layers_shown
from projector.residual.particles.states import (
    chosen_frames,
    collect_states,
    corpus_rows,
    find_outlying,
    frames_of,
    read_prompt,
    token_cloud,
)
from projector.residual.particles.written.clouds import contribution_cloud
from projector.residual.subject import Subject

__all__ = ["LayerTime", "check_before_loading", "layer_time"]

# Rows of a corpus that a map is fitted on: PCA takes seconds for them, and UMAP a minute.
_MOST_ROWS = 20_000
_LEAST_OWN = 2


def layer_time(
    model: Subject | LoadedModel | str,
    prompt: str | Sequence[int],
    prompt_b: str | Sequence[int] | None = None,
    *,
    chat: bool = False,
    progress: Progress | None = None,
    train: Callable[..., Trained] = train_autoencoder,
    **settings: Any,
) -> LayerTime:
    """Place the hidden states of a prompt, or of two, in one picture for every layer.

    Equal arguments give equal figures.

    Args:
        model: a name for :func:`projector.model.loading.load_model`, a loaded model, or a subject.
        prompt: text, to which the model's first special token is prepended; or token ids.
        prompt_b: a second prompt, placed by the same map.
        chat: apply the model's chat template to both, as a user's turn.
        train: trains an autoencoder if no folder of one is given, like
            :func:`projector.residual.particles.autoencoder.training.train_autoencoder`.
        settings: the fields of :class:`ParticleSettings`.

    Raises:
        SettingError: on an invalid setting.
        UserError: if a model, a prompt or a corpus can't be read, a prompt is longer than the
            model's context, two prompts' states differ where a causal model's must be equal, or
            memory is too small.
    """
    asked = ParticleSettings(**settings)
    check_before_loading(asked, prompt, prompt_b)
    if isinstance(model, str) and asked.layers is not None:
        check_layers_shown(asked.layers, count_layers(model))
    subject = Subject.of(model)
    with out_of_memory(f": give shorter prompts, or show fewer {named('layers')}"):
        return _Run(subject, asked, progress or Silent(), train).run(prompt, prompt_b, chat=chat)


def check_before_loading(
    settings: ParticleSettings,
    prompt: str | Sequence[int],
    prompt_b: str | Sequence[int] | None,
) -> None:
    """Raise the UserErrors that don't need a model, before it is loaded."""
    for name, text in (("prompt", prompt), ("prompt_b", prompt_b)):
        check_text(name, text if isinstance(text, str) else None)
    if prompt_b is None and settings.n_pairs is not None:
        raise SettingError(
            "n_pairs",
            settings.n_pairs,
            "has no effect here",
            f"give {named('prompt_b')} too, or leave it out",
        )
    if settings.reads_corpus:
        read_documents(settings.source)


@dataclass(frozen=True, eq=False)
class _Run:
    """One picture in the making."""

    subject: Subject
    settings: ParticleSettings
    progress: Progress
    train: Callable[..., Trained]

    def run(
        self, prompt: str | Sequence[int], prompt_b: str | Sequence[int] | None, *, chat: bool
    ) -> LayerTime:
        subject, settings = self.subject, self.settings
        check_layers_shown(settings.layers, len(subject.architecture.blocks))
        prompts = self._prompts(prompt, prompt_b, chat)
        chosen = chosen_frames(subject, settings.layers)
        every = frames_of(len(subject.architecture.blocks))
        frames = tuple(every[i] for i in chosen)
        self.progress.begin("Running the model", None, "")
        states = collect_states(subject, [each.ids for each in prompts])
        self.progress.end()
        masks, outliers = find_outlying(prompts, states, every)
        pair = self._compare(prompts, states)
        shown = [each[chosen] for each in states]
        of_particles: tuple[str, ...] = ()
        trained = self._autoencoder() if settings.particles == "autoencoder" else None
        if trained is not None:
            cloud, of_particles = particle_cloud(trained, states, chosen=chosen)
        elif settings.particles == "contributions":
            ids = [each.ids for each in prompts]
            cloud = contribution_cloud(
                subject, ids, settings=settings, outlying=masks, progress=self.progress
            )
        else:
            cloud = token_cloud(shown, frames, masks)
        metric = find_reduction(str(settings.reduction)).metric
        rows, fitted_on = self._rows(chosen)
        reduced = reduce(cloud, settings, rows=rows, progress=self.progress)
        self.progress.begin("Measuring fidelity", None, "")
        repeated = _repeated(cloud, pair)
        fidelity, pooled, by_chance = measure_fidelity(
            cloud,
            reduced.positions,
            metric=metric,
            dim=settings.dim,
            linear=reduced.linear,
            seed=settings.seed,
            left_out=repeated,
            controls=place_shuffled(cloud, settings, rows=rows, left_out=repeated)
            if reduced.linear
            else (),
        )
        n_lines = min(settings.n_lines, len(cloud.owners) - 1)
        neighbours, distances = nearest(cloud, n_lines, metric)
        self.progress.end()
        predictions, reasons = self._predict(shown)
        return LayerTime(
            settings=settings,
            model_name=subject.loaded.identifier,
            model_sha256=subject.loaded.weights_sha256,
            prompts=prompts,
            frames=frames,
            owners=cloud.owners,
            positions=reduced.positions,
            norms=cloud.norms,
            displacements=cloud.displacements,
            neighbours=neighbours,
            distances=distances,
            born=cloud.born,
            outlying=cloud.outliers,
            outliers=outliers,
            fidelity=fidelity,
            displacement_correlation=pooled,
            displacement_random=by_chance,
            last_states=torch.stack([each[:, -1] for each in shown]),
            metric=metric,
            pair=pair,
            predictions=predictions,
            autoencoder=None if trained is None else trained.as_dict(),
            saved=trained,
            notes=(*of_particles, *fitted_on, *reduced.notes, *_notes(prompts, trained)),
            reasons={**reasons, **({} if pair is None else pair.reasons)},
            versions=versions(),
        )

    def _prompts(
        self, prompt: str | Sequence[int], prompt_b: str | Sequence[int] | None, chat: bool
    ) -> tuple[PromptTokens, ...]:
        found = [read_prompt(self.subject, prompt, chat=chat)]
        if prompt_b is not None:
            try:
                found.append(read_prompt(self.subject, prompt_b, chat=chat))
            except UserError as error:
                if error.setting == "chat":
                    raise
                raise UserError(
                    f"{named('prompt_b')}: {error.args[0]}", setting="prompt_b", value=prompt_b
                ) from error
        if sum(each.n_own for each in found) < _LEAST_OWN:
            raise SettingError(
                "prompt",
                prompt if isinstance(prompt, str) else str(list(prompt)),
                "has only one token, but the picture compares tokens",
                "give a longer prompt, or draw the one token as an image of all layers",
            )
        return tuple(found)

    def _compare(self, prompts: Sequence[PromptTokens], states: Sequence[Tensor]) -> Pair | None:
        if len(prompts) < 2:
            return None
        (a, b), (states_a, states_b) = prompts, states
        return compare(
            self.subject,
            a.ids,
            b.ids,
            states_a,
            states_b,
            seed=self.settings.seed,
            n_pairs=self.settings.n_pairs,
            progress=self.progress,
        )

    def _autoencoder(self) -> Trained:
        settings = self.settings
        if settings.autoencoder is not None:
            return Trained.load(place_of_autoencoder(settings.autoencoder), self.subject)
        return self.train(
            self.subject,
            settings.source,
            n_particles=settings.n_particles,
            width=settings.width,
            steps=settings.steps,
            max_tokens=settings.max_tokens,
            seed=settings.seed,
            progress=self.progress,
        )

    def _rows(self, chosen: Sequence[int]) -> tuple[Tensor | None, tuple[str, ...]]:
        """What a map is fitted on in place of the prompts' states, and notes on it."""
        if self.settings.fit != "corpus":
            return None, ()
        return corpus_rows(
            self.subject,
            self.settings.source,
            max_tokens=self.settings.max_tokens,
            layers=chosen,
            most_rows=_MOST_ROWS,
            seed=self.settings.seed,
            keep_outliers=self.settings.keep_outliers,
            progress=self.progress,
        )

    def _predict(self, states: Sequence[Tensor]) -> tuple[Predictions | None, Mapping[str, str]]:
        try:
            return predict_tokens(self.subject, states, progress=self.progress), {}
        except SettingError:
            raise
        except UserError as error:
            return None, {"predictions": str(error)}


def _repeated(cloud: Cloud, pair: Pair | None) -> Tensor:
    """(P,) bool: particles of the second prompt that are those of the first, as the prompts begin.

    None are where a token also depends on what follows it.
    """
    n_alike = 0 if pair is None or pair.causal_error is None else pair.n_beginning
    return torch.tensor(
        [
            each.prompt == 1 and 0 <= each.token < n_alike and each.kind != "query"
            for each in cloud.owners
        ]
    )


def _notes(prompts: Sequence[PromptTokens], trained: Trained | None) -> list[str]:
    """What to know about the prompts and the autoencoder; for people."""
    notes = []
    if any(len(each.ids) > MOST_TOKENS for each in prompts):
        notes.append(f"Predictions are read at the last {MOST_TOKENS} tokens of a prompt.")
    if trained is not None:
        source = trained.facts["corpus"]["source"]
        notes += [
            f"The autoencoder is trained on {source}: {each}." for each in trained.facts["notes"]
        ]
        notes += [trained.warning] if trained.warning else []
        if any(len(each.ids) > LONGEST for each in prompts):
            notes.append(
                f"The autoencoder is trained on windows of up to {LONGEST} tokens: it is less "
                "accurate for a longer prompt."
            )
    return notes
