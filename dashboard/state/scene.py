"""The shown map and its model: everything a page needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.guest import Guest
from dashboard.neuron_facts import importance, output_norms
from dashboard.state import session
from dashboard.state.loading import fact_of, moments_at
from dashboard.state.model_room import ModelRoom
from dashboard.state.settings import Settings, model_for
from dashboard.state.shelf import model_room
from projector.errors import UserError
from projector.model.gguf_files import hash_gguf
from projector.model.hashing import hash_checkpoint
from projector.model.loading import BUNDLED
from projector.projection.overview import Overview
from projector.projection.projection import Projection


@dataclass(frozen=True)
class Scene:
    """One map of one projection, and the model behind it.

    Attributes:
        path: the projection's folder; ``name``: below the roots.
        layer, site: the chosen map.
        layout: the name of the layout whose positions are shown; see :func:`usual_layout`.
        model_name: the model to load for it; ``sha256``: hash of its weights.
    """

    settings: Settings
    name: str
    path: Path
    projection: Projection
    layer: int
    site: str
    layout: str
    model_name: str
    sha256: str

    @property
    def room(self) -> ModelRoom:
        return model_room(self.settings.device, self.settings.dtype)

    @contextmanager
    def model(self) -> Iterator[Guest]:
        """The projection's model, ready for use; shows a message if that takes a while.

        Raises:
            UserError: see :meth:`dashboard.state.model_room.ModelRoom.use`.
        """
        self.settings.check_model(self.model_name)
        note = st.empty()
        if self.room.name != self.model_name:
            note.info(f"Loading {session.plain(self.model_name)} …", icon=":material/hourglass:")
        is_lent = False
        waiting = "Someone else is using the model; this page is next …"
        try:
            with self.room.use(
                self.model_name,
                self.sha256,
                lambda: note.info(waiting, icon=":material/hourglass:"),
            ) as guest:
                note.empty()
                is_lent = True
                yield guest
        finally:
            # Draw nothing when the model is given back: a page that is left ends where it draws,
            # and the result would be lost.
            if not is_lent:
                note.empty()

    @property
    def dim(self) -> int:
        """Number of dimensions of the chosen layout."""
        return self.projection.layout(self.layout).settings.dim

    @property
    def n_neurons(self) -> int:
        return self.projection.figures(self.layer, self.site).n_neurons

    @property
    def dead(self) -> list[int]:
        """Neurons of the chosen map that never vary."""
        return list(self.projection.figures(self.layer, self.site).dead_neurons)

    @property
    def nonfinite(self) -> list[int]:
        """Neurons of the chosen map that are not finite on some token."""
        return list(self.projection.figures(self.layer, self.site).nonfinite_neurons)

    def importance(self, site: str) -> NDArray[np.floating]:
        """See :func:`dashboard.neuron_facts.importance`; for a site of the chosen layer, (N,).

        Raises:
            UserError: for sites other than MLP neurons, or if the model can't be loaded.
        """
        if site != "mlp_post":
            raise UserError(
                f"importance is defined only for MLP neurons (mlp_post), and this site is {site}"
            )

        def make() -> dict[int, NDArray[np.floating]]:
            with self.model() as guest:
                return output_norms(guest)

        norms = fact_of(("norms", self.sha256), make).get(self.layer)
        if norms is None:
            raise UserError(f"the output weights of layer {self.layer}'s MLP can't be found")
        mean, spread = moments_at(self.path, self.layer, site)
        return importance(mean, spread, norms)


def usual_layout(projection: Overview) -> str:
    """The default layout of pages: the first in two dimensions, or else the first."""
    flat = (name for name, each in projection.layouts.items() if each.settings.dim == 2)
    return next(flat, projection.layout_name())


def usual_model(settings: Settings, projection: Overview, folders: Mapping[str, Path]) -> str:
    """The model to load for a projection: that of ``--model`` if it matches, or the projection's
    own.

    A model is identified by its name; a local copy of a hub model, which may have another name, by
    its weights. If a model can't be found in any other way, it is taken to be the one of
    ``--model``.

    Args:
        folders: folders of models below the roots, by name.
    """
    facts, given = projection.facts.model, settings.model
    own = model_for(facts.id, folders)
    if given is None or given == own:
        return own
    path = Path(given)
    if facts.id in (given, path.resolve().name):
        return given
    if own == BUNDLED or own in folders:
        return own
    # A local model has its folder's name, without an owner as on the hub.
    is_other = "/" in own and (not path.exists() or _weights_of(path) != facts.sha256)
    return own if is_other else given


def _weights_of(path: Path) -> str | None:
    """The hash of a model's weights; None if they can't be read."""

    def make() -> str | None:
        try:
            return hash_gguf(path) if path.is_file() else hash_checkpoint(path)
        except (UserError, OSError, ValueError):
            return None

    return fact_of(("weights", path.resolve()), make)
