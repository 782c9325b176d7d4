"""``projector search``: a table for a person, one JSON object for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import projector
from projector.naming.legend import signs_in
from projector.terminal.cli import app
from tests.projector.naming.corpora import Words, with_examples

VOCABULARY = [*(f" filler{k}" for k in range(200)), " self", "method"]


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[[str], Path], text_file: Path
) -> Path:
    rng = np.random.default_rng(0)
    words = Words(VOCABULARY, rng.integers(0, len(VOCABULARY), 20 * 200))
    fitted = projector.fit(
        str(checkpoint("qwen2")), str(text_file), max_tokens=500, sites=("mlp_post",)
    )
    fires = rng.normal(0, 0.1, (len(words.ids), fitted.figures(1, "mlp_post").n_neurons))
    fires[:, [3, 4, 5]] += 5.0 * words.where(" self")[:, None]
    out = tmp_path_factory.mktemp("search") / "out"
    with_examples(fitted, words, {(1, "mlp_post"): fires}).save(out)
    return out


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, ["search", *map(str, args)])


def test_results_are_listed(folder: Path) -> None:
    result = invoke(folder, "self", "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "N3" in result.stdout
    assert "10 of 10" in result.stdout
    assert "1 more" in result.stdout
    # No label has a sign that needs an explanation.
    assert "↓" not in result.stdout


def test_signs_in_labels_are_explained(folder: Path) -> None:
    own = "L1 N7"
    label = json.loads(invoke(folder, own, "--json").stdout)["results"][0]["label"]
    expected = signs_in([label])
    assert expected
    text = invoke(folder, own).stdout
    assert all(meaning in text for _, meaning in expected)


def test_a_script_reads_one_object(folder: Path) -> None:
    result = invoke(folder, "self", "--json")
    value = json.loads(result.stdout)
    assert value["n_found"] == len(value["results"]) == 3
    first = value["results"][0]
    assert {k: first[k] for k in ("layer", "site", "neuron", "label")} == {
        "layer": 1,
        "site": "mlp_post",
        "neuron": 3,
        "label": "self",
    }
    assert first["strength"] == pytest.approx(1.0, abs=0.01)


def test_nothing_found_is_no_error(folder: Path) -> None:
    result = invoke(folder, "methods")
    assert result.exit_code == 0
    assert len(result.stdout.strip().splitlines()) == 1
    assert "method" in result.stdout
    value = json.loads(invoke(folder, "methods", "--json").stdout)
    assert value["results"] == []
    assert "method" in value["message"]


def test_what_cannot_be_searched_is_refused(folder: Path) -> None:
    for args in ((folder, ""), (folder, "self", "--limit", 0), (folder / "none", "self")):
        result = invoke(*args)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
