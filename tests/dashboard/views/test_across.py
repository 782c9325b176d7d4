"""Correlations across layers: on a neuron's card, and as a matrix of layers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

from dashboard.state.naming import name_neuron
from dashboard.views import across
from projector.projection.overview import read_saved
from projector.projection.partners.files import tensors_metadata
from projector.projection.projection import Projection
from projector.statistics.cross_layer.partners import PartnerList, Partners
from projector.statistics.cross_layer.records import Control, CrossLayerFacts, LayerPair, Level
from projector.storage.tensors import TensorFile, write_tensors
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import errors, link

N, K, SITE = 40, 8, "mlp_post"


@pytest.fixture(scope="module")
def shown(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root whose projection holds partners: neuron j of one layer has j, j + 1 … of the other,
    with falling |ρ| of both signs. Neuron 9 has none. The control is 0.8805, of neuron 3 0.21."""
    own = tmp_path_factory.mktemp("across")
    shutil.copytree(root / DECODER, own / DECODER)
    neuron = (torch.arange(N)[:, None] + torch.arange(K)) % N
    rho = 0.9 - 0.1 * torch.arange(K) - 0.001 * torch.arange(N)[:, None]
    rho[:, 1::2] *= -1
    neuron[9], rho[9] = -1, torch.nan
    rotated = torch.full((N,), 0.8805)
    rotated[3], rotated[9] = 0.21, torch.nan
    none = PartnerList(
        torch.full((N, K), torch.nan),
        *[torch.full((N, K), -1).int()] * 2,
        rotated=torch.full((N,), torch.nan),
    )
    tensors: dict[str, torch.Tensor] = {}
    for layer, other in ((0, 1), (1, 0)):
        listed = PartnerList(rho, torch.where(neuron < 0, -1, other).int(), neuron.int(), rotated)
        sides = (none, listed) if layer == 0 else (listed, none)
        tensors |= Partners(*sides).tensors(f"layers.{layer}.{SITE}")
    pair = LayerPair(
        0, 1, Level(0.61, 0.88), Control(0.21, 0.55, 0.7), Control(0.04, 0.06, 1.0), n_distinct=12
    )
    facts = CrossLayerFacts(1234, 0, 9, "00", n_undefined={0: 1, 1: 1}, pairs=(pair,))
    projection = Projection.load(own / DECODER)
    replace(projection, cross_layer=facts, partner_tensors=tensors).save(own / DECODER, force=True)
    name_neuron(own / DECODER, 0, SITE, 4, "<b>mine *")
    return own


def links(at: AppTest, start: str) -> list[tuple[str, str]]:
    """Labels of links that begin so, without signs that keep Markdown from reading them, and where
    they lead to."""
    found = [each.proto for each in at.get("page_link")]
    plain = [(re.sub(r"\\(.)", r"\1", each.label), each.query_string) for each in found]
    return [each for each in plain if each[0].startswith(start)]


def said(at: AppTest) -> str:
    shown = [*at.caption, *at.markdown, *at.info]
    return re.sub(r"\\(.)", r"\1", "\n".join(each.value for each in shown))


def test_a_card_lists_the_partners_beside_the_level_by_chance(shown: Path, start: Open) -> None:
    params = {"projection": DECODER, "layer": 1, "site": SITE, "neuron": 3, "statistic": "above"}
    at = start(shown, "neuron", **params).run()
    found = links(at, "L0 N")
    assert [re.match(r"L0 N(\d+) :gray\[(.*?)\]", words).groups() for words, _ in found] == [  # type: ignore[union-attr]
        (str(3 + k), f"{'+−'[k % 2]}{0.897 - 0.1 * k:.2f}") for k in range(K)
    ]
    # A link selects the neuron, and keeps the rest.
    for part in ("layer=0", "neuron=4", f"site={SITE}", "statistic=above"):
        assert part in found[1][1]
    # Names are text.
    assert found[1][0].endswith("<b>mine *")
    raw = [each.proto.label for each in at.get("page_link")]
    assert any("\\<b\\>mine \\*" in each for each in raw)
    # 0.9 to 0.861 without neuron 9: of neurons 0 to 19, all but that one have more than 0.8805.
    for text in ("random axes: 0.21", "exceeds 0.88", "19 of the layer's 39 neurons (49%)"):
        assert text in said(at)
    for text in ("1,234 tokens", "last one"):
        assert text in said(at)
    assert said(at).count("control of single") == 0
    # A neuron without correlations, and a site without partners.
    dead = start(shown, "neuron", **params | {"neuron": 9, "layer": 0}).run()
    assert links(dead, "L1 N") == []
    assert "no correlation" in said(dead)
    assert "Layer 0 " in said(dead)
    other = start(shown, "neuron", **params | {"site": "attn_out"}).run()
    assert links(other, "L0 N") == []
    # The map tells the strongest.
    (strongest,) = links(start(shown, "map", **params).run(), "L0 N")
    assert strongest[0] == "L0 N3 :gray[+0.90]"


def test_the_matrix_leads_to_pairs_of_layers_and_to_their_neurons(
    shown: Path, start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hear(inside: str, on_cell: Callable[[int, int], None]) -> None:
        for row, column in ((0, 0), (0, 1)):
            st.button(f"{inside} {row} {column}", on_click=on_cell, args=(row, column))

    monkeypatch.setattr(across, "hear_clicks", hear)
    at = start(shown, "across", projection=DECODER, statistic="moon", between="7-8").run()
    assert errors(at) == []
    assert "'moon'" in at.warning[0].value.replace("\\", "")
    assert "7-8" in at.warning[0].value.replace("\\", "")
    at.segmented_control(key="across statistic").set_value("above").run()
    assert link(at)["statistic"] == "above"
    assert "between" not in link(at)
    assert "70%, against 5% by chance" in said(at)
    assert "12 different neurons" in said(at)
    # Above the diagonal there is nothing to choose.
    (nothing,) = [each for each in at.button if each.label == "across_0 0 1"]
    nothing.click().run()
    assert "between" not in link(at)
    (cell,) = [each for each in at.button if each.label == "across_1 0 0"]
    cell.click().run()
    assert errors(at) == []
    assert link(at)["between"] == "0-1"
    assert at.subheader[0].value == "Layers 0 and 1"
    ends = zip(links(at, "L0 N"), links(at, "L1 N"), strict=True)
    assert [(a[0].split()[1], b[0].split()[1]) for a, b in ends][:3] == [
        ("N0", "N0"),
        ("N1", "N1"),
        ("N2", "N2"),
    ]
    assert "between=0-1" in links(at, "L1 N1")[0][1]
    assert "neuron=1" in links(at, "L1 N1")[0][1]


def test_without_partners_the_command_is_told(
    shown: Path, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    params = {"projection": DECODER, "layer": 1, "site": SITE, "neuron": 3}
    for page in ("neuron", "across"):
        at = start(own, page, **params).run()
        assert said(at).count("projector fit … --cross-layer --resume") == 1
    # They are shown as soon as they are there; damaged ones are told.
    for name in ("partners.json", "partners.safetensors"):
        shutil.copy(shown / DECODER / name, own / DECODER)
    assert "1,234 tokens" in said(at.run())
    # Those of an older version lack the control of single neurons.
    facts = json.loads((own / DECODER / "partners.json").read_text())
    facts = facts | {"format_version": 1}
    (own / DECODER / "partners.json").write_text(json.dumps(facts))
    write_tensors(
        own / DECODER / "partners.safetensors",
        dict(TensorFile(shown / DECODER / "partners.safetensors").items()),
        tensors_metadata(read_saved(own / DECODER)),
    )
    old = start(own, "neuron", **params).run()
    assert said(old).count("control of single") == 1
    assert len(links(old, "L0 N")) == K
    (own / DECODER / "partners.json").write_text("{")
    assert "damaged" in said(at.run())
