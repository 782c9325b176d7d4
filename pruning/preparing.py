"""What prune and sweep need before they run: a model that can be pruned, and its projection."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from projector.architecture import Architecture, find_architecture
from projector.architecture.widths import config_with_widths
from projector.errors import UserError
from projector.models import LoadedModel, load_model
from projector.projection import FACTS_FILE, Projection
from projector.sources import source_name
from pruning.calibration import check_memory, mlps_of
from pruning.poles import PoleSettings, find_poles
from pruning.standins import Proposals

# |ρ|, for who fires oppositely can stand in too; leaves, for on ρ one pole would hold nearly all.
CORRELATION_POLES = PoleSettings(space="abs-correlation", selection="leaf")
MAP_POLES = PoleSettings()


def choose_poles(
    space: str | None, min_cluster_size: int | None, selection: str | None
) -> PoleSettings | None:
    """Settings of the poles that propose stand-ins; None where nothing was asked for."""
    asked = {"space": space, "min_cluster_size": min_cluster_size, "selection": selection}
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        return None
    usual = MAP_POLES if space == "positions" else CORRELATION_POLES
    return replace(usual, **given)  # type: ignore[arg-type]


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
    check_memory(architecture, next(loaded.model.parameters()).device)


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of ``projection.json``, which the projection's other files name too."""
    return hashlib.sha256((Path(folder) / FACTS_FILE).read_bytes()).hexdigest()


def check_unseen(folder: str | Path, evaluations: Sequence[str]) -> None:
    """Raise a UserError if the projection was fitted on a text that pruned models are scored on.

    ``poles`` alone would have had a look at it.
    """
    corpus = Projection.load(folder).facts["corpus"]
    for source in evaluations:
        if corpus is not None and corpus["source"] == source_name(source):
            raise UserError(
                f"projection '{folder}' was fitted on '{corpus['source']}', which is an evaluation "
                "text: fit one on other text, or score on other text"
            )


def read_proposals(
    folder: str | Path,
    loaded: LoadedModel,
    architecture: Architecture,
    settings: PoleSettings | None = None,
) -> tuple[Proposals, ...]:
    """Poles and positions of every layer's MLP neurons, from the model's own projection.

    Args:
        settings: of the poles; None for those on |ρ|, or on the map where the projection keeps no
            statistics.

    Raises:
        UserError: if the projection is another model's, or lacks a layer's ``mlp_post``.
    """
    projection = Projection.load(folder)
    theirs, ours = projection.facts["model"]["sha256"], loaded.weights_sha256
    if theirs != ours:
        raise UserError(
            f"projection '{folder}' is of another model: its weights are {str(theirs)[:12]}, and "
            f"those of '{loaded.identifier}' are {ours[:12]}; make one with `projector fit`"
        )
    if settings is None:
        settings = CORRELATION_POLES if projection.has_statistics else MAP_POLES
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
    return tuple(proposals)
