"""Pages of a change of basis: whole, offline, and safe with any token."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from projector.errors import UserError
from projector.figures.basis.page import basis_page, plane_data, write_basis_page
from projector.figures.basis.script import WEB, plane_script, plane_style
from projector.residual.basis.activations import view_activations
from projector.residual.basis.attention import describe_mixing
from projector.residual.basis.planes import view_matrix
from projector.residual.basis.skip import describe_sum, view_skip
from tests.families import subject_of

ATTACK = "</script><script>alert('x')</script>"


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="plane-data">(.*?)</script>', page)
    assert found is not None
    read: dict[str, object] = json.loads(found[1])
    return read


def test_the_script_can_be_inlined() -> None:
    script = plane_script()
    assert re.findall(r"^export .*", script, re.M) == [
        "export function mount(root, data, onEvent) {"
    ]
    assert {path.name for path in WEB.glob("*.js")} == set(
        re.findall(r"^// (\w+\.js)$", script, re.M)
    )
    # It stands alone: nothing that is imported, and nothing that ends a script or a style early.
    assert not re.search(r"^\s*import\b", script, re.MULTILINE)
    assert "</script" not in script.lower()
    assert "</style" not in plane_style().lower()
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", script)


def test_a_map() -> None:
    view = view_matrix(((1.0, 1.0), (0.0, 1.0)), [(1.0, 0.5)])
    page = basis_page(replace(view, labels=(ATTACK,), title=ATTACK))
    assert ATTACK not in page
    data = data_of(page)
    assert data["matrix"] == [[1, 1], [0, 1]]
    assert data["labels"] == [ATTACK]
    assert "Drag" in page
    own = basis_page(replace(view, is_toy=False, space_before="plane", space_after="line"))
    assert "Before: plane. After: line." in own
    assert plane_script() in page
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)


def test_attention_shows_its_pattern_and_its_controls() -> None:
    pattern = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    view = describe_mixing(2, 1, ("a", ATTACK), pattern, torch.eye(2), closure_error=4e-8)
    page = basis_page(view)
    assert ATTACK not in page
    assert 'class="pattern"' in page
    assert "4e−08" in page
    for share in (*view.shares, *view.plane.shares):
        assert share.name in page
        assert share.control_name in page


def test_a_page_opens_with_what_was_looked_at() -> None:
    pattern = torch.tensor([[1.0, 0, 0], [0.25, 0.75, 0], [0.2, 0.2, 0.6]])
    view = describe_mixing(2, 1, ("a", "b", "c"), pattern, torch.eye(3))
    assert data_of(basis_page(view))["selected"] == 2
    page = basis_page(view, position=1)
    assert data_of(page)["selected"] == plane_data(view, position=1)["selected"] == 1
    # The pattern below opens with the same token, and tokens count from 1.
    assert 'data-row="1"' in page
    assert "mixture of token 2," in page
    assert data_of(page)["shares"] == json.loads(json.dumps(plane_data(view)["shares"]))
    toy = view_matrix(((1.0, 1.0), (0.0, 1.0)))
    assert data_of(basis_page(toy, relu=True))["relu"] is True
    assert "relu" not in data_of(basis_page(toy))


def test_a_skip_connection() -> None:
    view = describe_sum(torch.tensor([1.0, 0, 0]), torch.tensor([-1.0, 1, 0]), tokens=(ATTACK,))
    page = basis_page(view)
    assert ATTACK not in page
    assert "Token 1 “" in page
    assert "−0.71" in page
    assert len(data_of(page)["arrows"]) == 3  # type: ignore[arg-type]
    assert "stream exactly" in basis_page(replace(view, closure_error=0.0))
    assert "3e−07" in basis_page(replace(view, closure_error=3e-7))
    assert "of head 1" in basis_page(view_skip(subject_of("gpt2"), [5, 6], 1, head=1))


def test_activations() -> None:
    page = basis_page(view_activations(subject_of("opt"), [5, 6, 7]))
    assert "It is max(x, 0) exactly." in page
    assert page.count("Plotly.newPlot(") >= 2
    assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="http', page)
    assert "experts" in basis_page(view_activations(subject_of("mixtral"), [5, 6]))


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    view = view_matrix(((1.0, 0.0), (0.0, 1.0)))
    write_basis_page(view, tmp_path / "plane.html")
    assert (tmp_path / "plane.html").read_text(encoding="utf-8") == basis_page(view)
    with pytest.raises(UserError):
        write_basis_page(view, tmp_path / "plane.html" / "below.html")
    assert [path.name for path in tmp_path.iterdir()] == ["plane.html"]
