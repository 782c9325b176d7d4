"""What prune and sweep need before they run: a model that can be pruned, and its projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from projector.corpus.sources import find_source
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.widths import config_with_widths
from projector.model.loading import BUNDLED, LoadedModel, load_model
from projector.projection.overview import read_saved
from projector.projection.projection import Projection
from projector.projection.provenance import versions
from pruning.calibration.mlps import mlps_of
from pruning.methods.method import Proposals
from pruning.methods.planning import check_allocates
from pruning.methods.registry import method_named
from pruning.poles.finding import find_poles
from pruning.poles.poles import MAP_POLES, PoleSettings
from pruning.refit.refits import check_has_bias
from pruning.refit.registry import refit_named

# |ρ|, for who fires oppositely can stand in too; leaves, for on ρ one pole would hold nearly all.
CORRELATION_POLES = PoleSettings(space="abs-correlation", selection="leaf")


@dataclass(frozen=True)
class UsualTexts:
    """The texts, as sources, that a model is calibrated and scored on where none are given."""

    calibration: str
    evaluation: str


BUNDLED_TEXTS = UsualTexts("stdlib:train", "stdlib:heldout")


def usual_texts(model: str) -> UsualTexts | None:
    """The usual texts of a model, by its name; None where it has none, and they must be given."""
    return BUNDLED_TEXTS if model == BUNDLED else None


@dataclass(frozen=True)
class PoleOptions:
    """Settings of the poles that propose stand-ins; None is the default.

    Raises:
        UserError: on creation, if one can't be.
    """

    space: str | None = None
    min_cluster_size: int | None = None
    selection: str | None = None

    def __post_init__(self) -> None:
        self.settings(has_statistics=True)

    def settings(self, *, has_statistics: bool) -> PoleSettings:
        """The given settings; by default poles on |ρ|, or on the map if there are no statistics.

        Args:
            has_statistics: whether the projection keeps them.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None}
        on_map = self.space == "positions" or (self.space is None and not has_statistics)
        return replace(MAP_POLES if on_map else CORRELATION_POLES, **given)


def load_prunable(
    name: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[LoadedModel, Architecture]:
    """Load a model with its head, and make sure that its MLPs can be pruned and saved.

    Raises:
        UserError: if there is no such model, or it can't be pruned, with the reason.
    """
    loaded = load_model(
        name,
        revision=revision,
        device=device,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        with_head=True,
    )
    architecture = find_architecture(loaded.model)
    check_prunable(loaded, architecture)
    return loaded, architecture


def check_prunable(loaded: LoadedModel, architecture: Architecture) -> None:
    """Raise a UserError if the model's MLPs can't be pruned, or narrower ones not be saved."""
    widths = [mlp.n_neurons for mlp in mlps_of(architecture)]
    narrower = min(widths) - 1
    config_with_widths(loaded.model, architecture, [max(1, narrower)] * len(widths))


def check_possible(
    loaded: LoadedModel,
    architecture: Architecture,
    allocation: str,
    *,
    method: str | None = None,
    refit: str | None = None,
) -> None:
    """Raise a UserError, before any work, if the architecture can't hold a method's or refit's
    result.

    Args:
        method, refit: None to leave them out of it.
    """
    if refit is not None:
        check_has_bias(refit_named(refit), loaded.model, architecture)
    if allocation == "global":
        if method is not None:
            check_allocates(method_named(method))
        # Widths of each layer's own: refused here where the config holds one for all.
        own = [mlp.n_neurons for mlp in mlps_of(architecture)]
        uneven = [max(1, n - 1 - i % 2) for i, n in enumerate(own)]
        config_with_widths(loaded.model, architecture, uneven)


@dataclass(frozen=True)
class Origin:
    """Which projection poles are from, and which of its layouts.

    Attributes:
        sha256: of ``projection.json``, which the projection's other files name too.
        layout_sha256: of the first layout's facts, from whose positions poles and surroundings are;
            None where they are the projection's own, of format version 1.
    """

    sha256: str
    layout_sha256: str | None = None

    def facts(self) -> dict[str, str]:
        """For a plan or a report."""
        layout = {} if self.layout_sha256 is None else {"layout": self.layout_sha256}
        return {"projection": self.sha256, **layout}


def origin_of(folder: str | Path) -> Origin:
    """Which projection a folder holds.

    Raises:
        UserError: if it holds none.
    """
    saved = read_saved(folder)
    first = next(iter(saved.layouts.values()))
    return Origin(saved.fingerprint, first.metadata.get("layout"))


def check_unseen(folder: str | Path, evaluations: Sequence[str]) -> None:
    """Raise a UserError if the projection was fitted on a text that pruned models are scored on.

    ``poles`` alone would have had a look at it. Texts are the same if their documents are, under
    whatever names; of a stream from the hub, which a fit may read in part, if its name is.
    """
    corpus = Projection.load(folder).facts.corpus
    if corpus is None:
        return
    for source in evaluations:
        if find_source(source).is_of(corpus.source, corpus.sha256 or ""):
            raise UserError(
                f"projection '{folder}' was fitted on '{corpus.source}', and '{source}' is the "
                "same text: fit a projection on other text, or score on other text"
            )


def load_own(folder: str | Path, loaded: LoadedModel) -> Projection:
    """The model's own projection.

    Raises:
        UserError: if there is none in the folder, or it is another model's.
    """
    projection = Projection.load(folder)
    theirs, ours = projection.facts.model.sha256, loaded.weights_sha256
    if theirs != ours:
        raise UserError(
            f"projection '{folder}' belongs to another model: its weights are {theirs[:12]}, and "
            f"those of '{loaded.identifier}' are {ours[:12]}; make one with `projector fit`"
        )
    return projection


def read_proposals(
    folder: str | Path,
    loaded: LoadedModel,
    architecture: Architecture,
    options: PoleOptions | None = None,
) -> tuple[tuple[Proposals, ...], PoleSettings]:
    """Poles and positions of every layer's MLP neurons, from the model's own projection.

    Args:
        options: what is asked of the poles.

    Returns:
        Proposals of every layer, and the settings that their poles were found with.

    Raises:
        UserError: if the projection is another model's, or lacks a layer's ``mlp_post``.
    """
    projection = load_own(folder, loaded)
    # Where one map has no correlations, as one too wide for a matrix has none, all go by the map.
    has_statistics = all(
        projection.has_statistics_of(layer, site)
        for layer, site in projection.maps
        if site == "mlp_post"
    )
    settings = (options or PoleOptions()).settings(has_statistics=has_statistics)
    proposals = []
    for layer in range(len(mlps_of(architecture))):
        if (layer, "mlp_post") not in projection.maps:
            raise UserError(
                f"projection '{folder}' has no mlp_post of layer {layer}: make one with "
                "`projector fit --sites mlp_post`, of all layers"
            )
        poles = find_poles(projection, layer, "mlp_post", settings)
        proposals.append(
            Proposals(poles.labels, poles.opposites, projection.positions(layer, "mlp_post"))
        )
    return tuple(proposals), settings


def pruning_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a plan is and what it costs."""
    return versions() | {"hdbscan": version("hdbscan")}
