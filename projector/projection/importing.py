"""Import positions that were trained elsewhere as a ``Projection``."""

from __future__ import annotations

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from projector.errors import UserError
from projector.layouts.settings import Layout
from projector.model.architecture.finding import find_architecture
from projector.model.loading import load_model
from projector.projection.facts import Facts, LayoutSettings, MapFacts
from projector.projection.faithfulness import PlacementFigures, measure
from projector.projection.projection import PlacedLayout, Projection
from projector.projection.provenance import model_facts, versions
from projector.sites import map_name

_KEY = re.compile(r"(?:^|\.)layers\.(\d+)\.(mlp|self_attn)\.neuron_projections$")
_SITES = {"mlp": "mlp_out", "self_attn": "attn_out"}


def import_checkpoint(
    checkpoint: str | Path,
    model: str,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Projection:
    """Read a safetensors file of positions, written by Accelerate.

    Its keys end in ``layers.<i>.mlp.neuron_projections`` (site ``mlp_out``) and
    ``layers.<i>.self_attn.neuron_projections`` (site ``attn_out``), each (hidden, d). Figures that
    need correlations are null, because such a file holds none.

    Raises:
        UserError: if the file isn't such a checkpoint, or doesn't fit the model.
    """
    path = Path(checkpoint)
    found = _read_positions(path)
    loaded = load_model(model, revision=revision, device="cpu", trust_remote_code=trust_remote_code)
    trunk = getattr(loaded.model, "base_model", loaded.model)
    architecture = find_architecture(trunk)
    layers = sorted({layer for layer, _ in found})
    sites = [site for site in _SITES.values() if any(s == site for _, s in found)]
    dims = {positions.shape[1] for positions in found.values()}
    if len(dims) > 1:
        raise UserError(
            f"'{path}' mixes positions of dimensions {sorted(dims)}: give a checkpoint with one "
            "dimension"
        )
    architecture.choose_layers(layers)
    for (layer, site), positions in found.items():
        n_neurons = architecture.blocks[layer].widths.get(site)
        if positions.shape[0] != n_neurons:
            raise UserError(
                f"'{path}' doesn't fit the model '{model}': layer {layer} {site} has "
                f"{positions.shape[0]:,} positions, but the model has {n_neurons or 0:,} neurons "
                f"there; give the model that the positions were trained with"
            )
    dim = dims.pop()
    layout = Layout(dim=dim)
    tensors = {map_name(*key): positions for key, positions in sorted(found.items())}
    facts = Facts(
        model=model_facts(loaded, architecture),
        corpus=None,
        sites=tuple(sites),
        layers=tuple(layers),
        left_out_sites={},
        correlation=None,
        maps={
            name: MapFacts(
                n_neurons=positions.shape[0],
                n_tokens=None,
                dead_neurons=tuple((~positions.isfinite().all(dim=1)).nonzero()[:, 0].tolist()),
                organisation_reason="imported positions come without correlations",
            )
            for name, positions in tensors.items()
        },
        versions=versions(),
    )
    placed = PlacedLayout(
        # How the positions were trained is not in the file; only their dimension is.
        settings=LayoutSettings("stress", "imported", "imported", dim, absolute=False),
        figures={
            name: PlacementFigures(measure(positions, None, layout))
            for name, positions in tensors.items()
        },
        versions=versions(),
        positions=tensors,
    )
    return Projection(facts, {placed.settings.name: placed})


def _read_positions(path: Path) -> dict[tuple[int, str], Tensor]:
    if not path.is_file():
        raise UserError(f"there is no checkpoint file '{path}': check its name")
    found: dict[tuple[int, str], Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():
                match = _KEY.search(key)
                if match is None:
                    continue
                positions = file.get_tensor(key)
                if positions.ndim != 2 or not positions.is_floating_point():
                    raise UserError(
                        f"'{path}': {key} has shape {tuple(positions.shape)} and type "
                        f"{positions.dtype}, not floats of shape (neurons, d)"
                    )
                if positions.shape[1] == 0:
                    raise UserError(
                        f"'{path}': {key} has shape {tuple(positions.shape)}, but a position needs "
                        "at least one coordinate"
                    )
                positions = positions.float()
                positions[~positions.isfinite().all(dim=1)] = float("nan")
                place = int(match[1]), _SITES[match[2]]
                if place in found:
                    raise UserError(
                        f"'{path}' holds layer {place[0]} {place[1]} twice: remove {key}"
                    )
                found[place] = positions
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"'{path}' can't be read as safetensors: {' '.join(str(error).split())}"
        ) from error
    if not found:
        raise UserError(
            f"'{path}' holds no positions: no key ends in layers.<i>.mlp.neuron_projections or "
            "layers.<i>.self_attn.neuron_projections"
        )
    return found
