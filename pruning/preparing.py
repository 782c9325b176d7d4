"""Prepare prune and sweep: load a model that can be pruned, and its projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from projector.corpus.sources import find_source
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.architecture.widths import config_with_widths
from projector.model.loading import BUNDLED, LoadedModel, load_model
from projector.projection.overview import read_saved
from projector.projection.projection import Projection
from projector.projection.provenance import versions
from projector.settings import compared
from pruning.calibration.mlps import mlps_of
from pruning.calibration.text import CalibrationText
from pruning.methods.method import Proposals
from pruning.methods.planning import check_allocates
from pruning.methods.registry import method_named
from pruning.poles.finding import find_poles
from pruning.poles.poles import PoleSettings
from pruning.refit.refits import check_has_bias
from pruning.refit.registry import refit_named
from pruning.scoring.windows import EvaluationText
from pruning.settings import PoleOptions
from pruning.surgery import count_parameters


@dataclass(frozen=True)
class UsualTexts:
    """The sources that a model is calibrated and scored on if none are given."""

    calibration: str
    evaluation: str


BUNDLED_TEXTS = UsualTexts("stdlib:train", "stdlib:heldout")


def usual_texts(model: str) -> UsualTexts | None:
    """The usual texts of a model, by its name; None for models that need texts to be given."""
    return BUNDLED_TEXTS if model == BUNDLED else None


def load_prunable(
    name: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> tuple[LoadedModel, Architecture]:
    """Load a model with its head, and check that its MLPs can be pruned and saved.

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
    """Raise a UserError if the model's MLPs can't be pruned, or a narrower model can't be saved."""
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
        method, refit: None leaves out the check.
    """
    if refit is not None:
        check_has_bias(refit_named(refit), loaded.model, architecture)
    if allocation == "global":
        if method is not None:
            check_allocates(method_named(method))
        # Different widths per layer: refused here if the config holds one width for all.
        own = [mlp.n_neurons for mlp in mlps_of(architecture)]
        uneven = [max(1, n - 1 - i % 2) for i, n in enumerate(own)]
        config_with_widths(loaded.model, architecture, uneven)


@dataclass(frozen=True)
class Origin:
    """The projection and the layout that poles are from.

    Attributes:
        sha256: of ``projection.json``, which the projection's other files name too.
        layout_sha256: of the facts of the first layout, whose positions poles and surroundings use;
            None for a projection of format version 1.
    """

    sha256: str
    layout_sha256: str | None = None

    def facts(self) -> dict[str, str]:
        """Facts for a plan or a report."""
        layout = {} if self.layout_sha256 is None else {"layout": self.layout_sha256}
        return {"projection": self.sha256, **layout}


def origin_of(folder: str | Path) -> Origin:
    """Identify the projection in a folder.

    Raises:
        UserError: if it holds no projection.
    """
    saved = read_saved(folder)
    first = next(iter(saved.layouts.values()))
    return Origin(saved.fingerprint, first.metadata.get("layout"))


def check_unseen(folder: str | Path, evaluations: Sequence[str]) -> None:
    """Raise a UserError if the projection was fitted on a text that pruned models are scored on.

    Only the method ``poles`` would have seen that text. Texts are the same if their documents are,
    under any name; streams from the hub, which a fit may read in part, are the same if their names
    are.
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
    """Load the model's projection.

    Raises:
        UserError: if the folder holds no projection, or one of another model.
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
    """Poles and positions of every layer's MLP neurons, from the model's projection.

    Args:
        options: settings of the poles.

    Returns:
        Proposals for every layer, and the settings that their poles were found with.

    Raises:
        UserError: if the projection belongs to another model, or lacks a layer's ``mlp_post``.
    """
    projection = load_own(folder, loaded)
    # If one map has no correlations (it may be too wide for a matrix), all poles are on maps.
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
                f"projection '{folder}' lacks mlp_post of layer {layer}: make one of all layers "
                "with `projector fit --sites mlp_post`"
            )
        poles = find_poles(projection, layer, "mlp_post", settings)
        proposals.append(
            Proposals(poles.labels, poles.opposites, projection.positions(layer, "mlp_post"))
        )
    return tuple(proposals), settings


def pruning_versions() -> dict[str, str]:
    """Versions of the libraries that affect plans and scores."""
    return versions() | {"hdbscan": version("hdbscan")}


def model_facts(loaded: LoadedModel, architecture: Architecture) -> dict[str, Any]:
    """Which model a report is about, and how large it is."""
    return {
        "id": loaded.identifier,
        "sha256": loaded.weights_sha256,
        "architecture": type(loaded.model).__name__,
        "parameters": count_parameters(loaded.model),
        "mlp_neurons": [mlp.n_neurons for mlp in mlps_of(architecture)],
    }


def settings_facts(settings: Any, request: Any) -> dict[str, Any]:
    """Every field of the settings, and those of the request in which two runs may not differ.

    Args:
        settings: a dataclass; ``request``: one too, or None.
    """
    found = asdict(settings) | ({} if request is None else compared(request))
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def calibration_facts(text: CalibrationText) -> dict[str, Any]:
    """Which calibration text was read."""
    return {
        "source": text.source,
        "sha256": text.corpus.sha256,
        "sequence_length": text.sequence_length,
    }


def evaluation_facts(text: EvaluationText) -> dict[str, Any]:
    """Which text models are scored on, and how it is cut."""
    return {
        "source": text.source,
        "sha256": text.sha256,
        "description": text.description,
        "windows": text.n_windows,
    }
