"""The settings of a picture of hidden states over the layers, checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from projector.errors import SettingError, check_choice, check_least, check_seed, named
from projector.residual.particles.pairing.cost import check_pairs
from projector.residual.particles.reduction.registry import (
    REDUCTIONS,
    find_reduction,
    reduction_help,
)
from projector.settings import check_types, setting

KINDS = ("tokens", "contributions", "autoencoder")
FITS = ("prompt", "corpus")
DEFAULT_CORPUS = "stdlib"
# What a corpus gives a map to be fitted on.
MAX_TOKENS = 20_000
# Lines from a particle. They are kept for each frame, so their number is a matter of memory, too.
MOST_LINES = 50


def default_reduction(particles: str) -> str:
    """The default reduction: PCA, which preserves displacements best; UMAP for the particles of an
    autoencoder.
    """
    return "umap" if particles == "autoencoder" else "pca"


@dataclass(frozen=True)
class ParticleSettings:
    """The settings of particles and their placement.

    Attributes:
        particles: "tokens", one particle per token; "contributions", one for the addition of each
            head and each group of neurons to a token; "autoencoder", a fixed number of learned
            vectors.
        reduction: "pca", "umap" or "stress"; None for the default of the kind of particles.
        per_layer: fit a map for each frame, rotated onto the previous frame; by default there is
            one map for all frames.
        dim: dimensions of the picture, 3 or 2.
        neighbours: number of neighbours of each row for UMAP.
        n_lines: number of lines from each particle to its nearest particles in full space; 0 for
            none.
        seed: seed of all random choices.
        layers: the layers to show after the embedding; None for all.
        fit: "prompt", the map is fitted on the shown states; "corpus", on hidden states of the
            corpus.
        corpus: the text for fitting a map or training an autoencoder; see
            :func:`projector.corpus.sources.read_documents`. None for the default if one is read.
        max_tokens: largest number of tokens of that text.
        keep_outliers: whether tokens with outlier norms are included in the fit of the map.
        n_particles: number of particles of an autoencoder.
        width: width of each of its particles.
        steps: number of its training steps; None for the default.
        autoencoder: the folder of a saved autoencoder, used instead of training.
        projection: the folder of a projection with poles, which become the groups of neurons.
        n_groups: number of groups of neurons in each layer, if no projection is given.
        n_pairs: number of pairs of sampled continuations to compare the distance of two prompts
            with; 0 for none, None for as many as take seconds.

    Raises:
        SettingError: on a field that is invalid, or has no effect with the other settings.
    """

    particles: str = setting(
        "tokens",
        help=(
            "tokens: one particle per token; contributions: one for the addition of each "
            "head and each group of neurons; autoencoder: a fixed number of learned vectors."
        ),
        choices=KINDS,
    )
    reduction: str | None = setting(
        None,
        help=lambda: (
            f"How particles are placed. {reduction_help()} By default pca, and umap for the "
            "particles of an autoencoder."
        ),
        choices=REDUCTIONS,
    )
    per_layer: bool = setting(
        False,
        help=(
            "Fit a map for each layer, rotated onto the previous layer. By default one map serves "
            "all layers, so that motion is meaningful."
        ),
    )
    dim: int = setting(3, help="Dimensions of the picture: 3 or 2.")
    neighbours: int = setting(15, help="How many neighbours of each particle UMAP keeps.")
    n_lines: int = setting(
        5,
        help=(
            "Number of lines from each particle to its nearest particles in full space; 0 for "
            f"none, at most {MOST_LINES}."
        ),
    )
    seed: int = setting(0, help="Seed of all random choices.")
    layers: tuple[int, ...] | None = setting(
        None, help="Which layers to show after the embedding: 2,4-5. By default all."
    )
    fit: str = setting(
        "prompt",
        help="prompt: fit the map on the shown states; corpus: on hidden states of a corpus.",
        choices=FITS,
    )
    corpus: str | None = setting(
        None,
        help="The text that a map is fitted on, or an autoencoder is trained on: "
        "stdlib[:train|:heldout], a file or folder, or hf:NAME. By default stdlib.",
    )
    max_tokens: int = setting(MAX_TOKENS, help="Read at most this many tokens of the corpus.")
    keep_outliers: bool = setting(
        False,
        help="Include tokens with outlier norms (many times the median) in the fit of the map. By "
        "default, they are left out.",
    )
    n_particles: int = setting(1024, help="How many particles an autoencoder has.")
    width: int = setting(16, help="How many numbers each particle of an autoencoder has.")
    steps: int | None = setting(
        None,
        help="Training steps of the autoencoder. By default, enough for a few minutes of training.",
    )
    autoencoder: Path | None = setting(
        None, help="Folder of a saved autoencoder. By default one is trained."
    )
    projection: Path | None = setting(
        None, help="A saved projection with poles, which become the groups of neurons."
    )
    n_groups: int = setting(
        8, help="How many groups of neurons each layer has, if no projection gives them."
    )
    n_pairs: int | None = setting(
        None,
        help=(
            "Number of pairs of sampled continuations to compare the distance of two prompts "
            "with: 20 or more, 0 for none. By default, as many as take a few seconds."
        ),
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("autoencoder", "projection"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, Path(getattr(self, name)))
        check_choice("particles", self.particles, KINDS)
        if self.reduction is None:
            object.__setattr__(self, "reduction", default_reduction(self.particles))
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_choice("fit", self.fit, FITS)
        if self.dim not in (2, 3):
            raise SettingError("dim", self.dim, "can't be drawn", "give 3 or 2")
        for name, least in _LEAST.items():
            check_least(name, getattr(self, name), least)
        if self.n_lines > MOST_LINES:
            raise SettingError(
                "n_lines", self.n_lines, "is too many to see", f"give {MOST_LINES} or fewer"
            )
        check_seed("seed", self.seed)
        check_pairs("n_pairs", self.n_pairs)
        if self.layers is not None:
            if not self.layers or min(self.layers) < 0:
                raise SettingError(
                    "layers", str(self.layers), "can't be shown", "give layers, counted from 0"
                )
            object.__setattr__(self, "layers", tuple(sorted(set(self.layers))))
        if self.fit == "corpus":
            self._check_fit()
        self._check_effect()

    def _check_fit(self) -> None:
        if not find_reduction(str(self.reduction)).places_others:
            raise SettingError(
                "fit",
                self.fit,
                f"can't be combined with {named('reduction', self.reduction)}, which only "
                "places the states that it is fitted on",
                "choose pca or umap, or leave it out",
            )
        if self.per_layer:
            raise SettingError(
                "fit",
                self.fit,
                f"can't be combined with {named('per_layer', True)}",
                "a corpus fits one map for all layers; give one of the two",
            )
        if self.particles == "contributions" and self.reduction == "umap":
            raise SettingError(
                "fit",
                self.fit,
                f"can't be combined with {named('particles', 'contributions')} and "
                f"{named('reduction', 'umap')}, which would place a part among whole states",
                "choose pca, or leave it out",
            )
        if self.particles == "autoencoder":
            raise SettingError(
                "fit",
                self.fit,
                f"can't be combined with {named('particles', 'autoencoder')}",
                "leave it out: the autoencoder itself is trained on the corpus",
            )

    def _check_effect(self) -> None:
        """Raise a SettingError if a setting is set that changes nothing beside the others."""
        read = fields_read(
            self.particles,
            str(self.reduction),
            self.fit,
            has_autoencoder=self.autoencoder is not None,
            has_projection=self.projection is not None,
        )
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in read or value == each.default or each.name == "reduction":
                continue
            needed = _NEEDED[each.name]
            shown = value if isinstance(value, (bool, int, str)) else str(value)
            raise SettingError(each.name, shown, "has no effect here", f"{needed}, or leave it out")

    @property
    def reads_corpus(self) -> bool:
        """Whether a corpus is read."""
        trains = self.particles == "autoencoder" and self.autoencoder is None
        return self.fit == "corpus" or trains

    @property
    def source(self) -> str:
        """The corpus to read, if any."""
        return DEFAULT_CORPUS if self.corpus is None else self.corpus

    def facts(self) -> dict[str, Any]:
        """The settings for a report, without local paths."""
        from projector.corpus.sources import find_source

        found: dict[str, Any] = dict(vars(self))
        found["layers"] = None if self.layers is None else list(self.layers)
        for name in ("autoencoder", "projection"):
            found[name] = None if found[name] is None else "saved"
        found["corpus"] = find_source(self.source).name if self.reads_corpus else None
        return found


_LEAST = {
    "neighbours": 2,
    "n_lines": 0,
    "max_tokens": 1,
    "n_particles": 2,
    "width": 1,
    "steps": 1,
    "n_groups": 1,
}
# What a setting belongs to, for who set it where nothing reads it.
_NEEDED = {
    "neighbours": f"give {named('reduction', 'umap')} too",
    "keep_outliers": f"give {named('particles', 'tokens')}, or contributions,",
    "corpus": f"give {named('fit', 'corpus')} or {named('particles', 'autoencoder')} too",
    "max_tokens": f"give {named('fit', 'corpus')} or {named('particles', 'autoencoder')} too",
    "n_particles": f"give {named('particles', 'autoencoder')}, and no saved one,",
    "width": f"give {named('particles', 'autoencoder')}, and no saved one,",
    "steps": f"give {named('particles', 'autoencoder')}, and no saved one,",
    "autoencoder": f"give {named('particles', 'autoencoder')} too",
    "projection": f"give {named('particles', 'contributions')} too",
    "n_groups": f"give {named('particles', 'contributions')}, and no projection,",
}


def fields_read(
    particles: str,
    reduction: str,
    fit: str = "prompt",
    *,
    has_autoencoder: bool = False,
    has_projection: bool = False,
) -> frozenset[str]:
    """The settings that have an effect together with these, for interfaces to offer.

    Args:
        particles, reduction, fit: as in :class:`ParticleSettings`.
        has_autoencoder: whether a saved autoencoder is used.
        has_projection: whether a projection gives the groups of neurons.
    """
    read = {"particles", "reduction", "per_layer", "dim", "n_lines", "seed", "layers", "fit"}
    read.add("n_pairs")
    if particles != "autoencoder":  # whose particles have no outliers
        read.add("keep_outliers")
    read |= find_reduction(reduction).reads
    trains = particles == "autoencoder" and not has_autoencoder
    if fit == "corpus" or trains:
        read |= {"corpus", "max_tokens"}
    if particles == "autoencoder":
        read.add("autoencoder")
    if trains:
        read |= {"n_particles", "width", "steps"}
    if particles == "contributions":
        read |= {"projection"} if has_projection else {"projection", "n_groups"}
    return frozenset(read)


def check_layers_shown(layers: Sequence[int] | None, n_layers: int | None) -> None:
    """Raise a SettingError on ``layers`` if the model lacks one of them.

    Args:
        n_layers: number of layers of the model; None if not yet known.
    """
    for layer in layers or ():
        if n_layers is not None and layer >= n_layers:
            raise SettingError(
                "layers", layer, "is not a layer of the model", f"give 0 to {n_layers - 1}"
            )
