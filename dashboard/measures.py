"""Figures of neurons that need the model, kept so that it is asked once."""

from __future__ import annotations

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard.frame.sidebar import Scene
from dashboard.state.loading import moments_at
from projector.errors import UserError
from projector.model.architecture.records import Mlp
from projector.model.architecture.weights import read_weights

_KEPT = "output norms"


def importance_of(scene: Scene, site: str) -> NDArray[np.floating]:
    """Root mean square activation × norm of the output weights, (N,); of MLP neurons.

    What a neuron adds to the stream on average, after Wanda (Sun et al. 2023, arXiv:2306.11695)
    by whole neurons.

    Raises:
        UserError: for another site, or if the model can't be loaded.
    """
    if site != "mlp_post":
        raise UserError(f"importance is of MLP neurons (mlp_post), and this is {site}")
    kept = st.session_state.setdefault(_KEPT, {})
    key = (scene.sha256, scene.layer)
    if key not in kept:
        with scene.model() as guest:
            for layer, block in enumerate(guest.architecture.blocks):
                if block.mlp is not None:
                    kept[scene.sha256, layer] = _norms(block.mlp)
    if key not in kept:
        raise UserError(f"layer {scene.layer} has no MLP whose output weights are known")
    mean, spread = moments_at(scene.path, scene.layer, site)
    return np.sqrt(mean**2 + spread**2) * kept[key]


def _norms(mlp: Mlp) -> NDArray[np.floating]:
    weights = read_weights(mlp).output
    return weights.detach().float().norm(dim=0).cpu().numpy()
