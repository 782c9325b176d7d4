"""``projector layout`` and what other commands say of several layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from projector import Projection
from projector.terminal.cli import app
from tests.projections import contents
from tests.refused import lacking

GOLDEN = Path(__file__).parents[2] / "golden" / "projection-v1"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "stress", tmp_path / "saved"))


def test_a_layout_is_added_without_the_model(folder: Path) -> None:
    before = contents(folder)
    result = invoke("layout", folder, "--objective", "linear")
    assert result.exit_code == 0, result.output
    assert "Added layout linear-1d" in result.stdout
    # The table is of what was added.
    assert "spectral" in result.stdout
    after = contents(folder)
    assert {name: after[name] for name in before} == before
    assert list(Projection.load(folder).layouts) == ["stress-2d", "linear-1d"]
    # An existing name needs --force.
    again = invoke("layout", folder, "--objective", "linear")
    assert again.exit_code == 2
    assert lacking(again.stderr, "'linear-1d'", "--force", "--name") == []
    assert contents(folder) == after
    assert invoke("layout", folder, "--objective", "linear", "--force").exit_code == 0
    assert contents(folder) == after


def test_a_layout_has_the_name_that_is_given(folder: Path) -> None:
    result = invoke("layout", folder, "--dim", 3, "--seed", 4, "--name", "mine", "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert value["added"] == "mine"
    assert list(value["layouts"]) == ["stress-2d", "mine"]
    assert (value["layout"]["dim"], value["layout"]["seed"]) == (3, 4)
    assert (
        value["maps"][0]["stress"]
        == value["layouts"]["mine"]["maps"]["layers.0.mlp_post"]["stress"]
    )
    assert "--name '../up'" in invoke("layout", folder, "--name", "../up").stderr


def test_info_lists_layouts_by_name_and_tells_of_the_one_that_is_asked_for(folder: Path) -> None:
    assert invoke("layout", folder, "--objective", "linear").exit_code == 0
    value = json.loads(invoke("info", folder, "--json").stdout)
    assert list(value["layouts"]) == ["stress-2d", "linear-1d"]
    assert value["layout"] == value["layouts"]["stress-2d"]["settings"]
    text = invoke("info", folder).stdout
    assert "stress-2d: stress by smacof, 2-D" in text
    assert "linear-1d: linear by moves, 1-D" in text
    # Without a name, each has its table.
    assert text.count("neighbours kept") >= 2
    assert "spectral" in text
    assert "spectral" not in invoke("info", folder, "--layout", "stress-2d").stdout
    value = json.loads(invoke("info", folder, "--layout", "linear-1d", "--json").stdout)
    assert value["layout"]["objective"] == "linear"
    missing = invoke("info", folder, "--layout", "neighbours-2d")
    assert missing.exit_code == 2
    assert lacking(missing.stderr, "--layout 'neighbours-2d'", "stress-2d", "linear-1d") == []


def test_without_statistics_it_says_what_to_do(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "linear", tmp_path / "saved"))
    result = invoke("layout", folder)
    assert result.exit_code == 2
    assert lacking(result.stderr, "statistics", "`projector fit`") == []
    assert contents(folder) == contents(GOLDEN / "linear")


def test_more_dimensions_than_the_narrowest_map_can_fill_are_refused(folder: Path) -> None:
    before = contents(folder)
    result = invoke("layout", folder, "--dim", "500")
    assert result.exit_code == 2
    assert "--dim 500 " in result.stderr
    assert contents(folder) == before


def test_a_layout_that_does_not_name_its_format_is_damaged(folder: Path) -> None:
    assert invoke("layout", folder, "--objective", "linear").exit_code == 0
    path = folder / "layouts" / "linear-1d.json"
    path.write_text("{}")
    result = invoke("info", folder)
    assert result.exit_code == 2
    assert lacking(result.stderr, path, "damaged") == []


def test_a_table_says_which_of_several_layouts_it_is_of(folder: Path) -> None:
    assert "\nstress-2d\n" not in invoke("info", folder).stdout
    assert invoke("layout", folder, "--objective", "linear").exit_code == 0
    assert "\nstress-2d\n" in invoke("info", folder).stdout
    assert "\nlinear-1d\n" in invoke("info", folder, "--layout", "linear-1d").stdout
