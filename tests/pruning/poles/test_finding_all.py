"""Poles of all maps: found, judged and labelled; kept as they are found, and found once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from projector.errors import SettingError, UserError
from projector.progress import Silent
from projector.projection.projection import Projection
from pruning.poles import finding_all
from pruning.poles.describing import label_poles
from pruning.poles.files import load_every_pole, load_poles, poles_file
from pruning.poles.finding import find_poles
from pruning.poles.finding_all import PoleRequest, find_all
from pruning.poles.judging import judge_poles
from pruning.poles.poles import MAP_POLES, Poles, PoleSettings
from tests.projector.naming.corpora import Words, with_examples
from tests.pruning.poles.test_files import made
from tests.pruning.poles.test_judging import N, projected, rows_of
from tests.pruning.poles.test_poles import SITE, project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made(layers=3).save(tmp_path / "map")
    return tmp_path / "map"


def test_all_maps_are_found_and_judged_and_kept(folder: Path) -> None:
    found = find_all(folder)
    assert found.path == folder / poles_file(PoleSettings())
    projection = Projection.load(folder)
    assert [(one.layer, one.site) for one in found.poles] == projection.maps
    for one in found.poles:
        expected = judge_poles(projection, find_poles(projection, one.layer, one.site))
        assert one.controls is not None
        assert one.controls == expected.controls
        assert torch.equal(one.labels, expected.labels)
        kept = load_poles(folder, one.layer, one.site)
        assert kept is not None
        assert kept.as_dict() == one.as_dict()
        assert "no examples" in kept.reasons["label"]
    content = found.path.read_bytes()
    find_all(folder, PoleRequest(force=True))
    assert found.path.read_bytes() == content


def test_what_is_there_is_not_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n_found, n_judged = [], []

    def finding(*args: object) -> Poles:
        n_found.append(args)
        return find_poles(*args)  # type: ignore[arg-type]

    def judging(*args: object) -> Poles:
        n_judged.append(args)
        return judge_poles(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(finding_all, "find_poles", finding)
    monkeypatch.setattr(finding_all, "judge_poles", judging)
    find_all(folder, PoleRequest(layers=(1,), with_controls=False))
    assert (len(n_found), len(n_judged)) == (1, 0)
    kept = load_poles(folder, 1)
    assert kept is not None
    assert kept.controls is None
    assert set(kept.reasons) >= {"controls"}
    # What was found without controls gets them.
    find_all(folder)
    assert (len(n_found), len(n_judged)) == (3, 3)
    find_all(folder)
    find_all(folder, PoleRequest(with_controls=False))
    assert (len(n_found), len(n_judged)) == (3, 3)
    assert all(one.controls is not None for one in load_every_pole(folder).values())
    assert all("controls" not in one.reasons for one in load_every_pole(folder).values())
    # So does what a version judged that counted no axes in draws.
    path = folder / poles_file(PoleSettings())
    path.write_text(re.sub(r',\n *"n_axes": [\d.]+', "", path.read_text()))
    older = load_every_pole(folder).values()
    assert {one.controls and one.controls.shuffled.n_axes for one in older} == {None}
    find_all(folder, PoleRequest(with_controls=False))
    assert (len(n_found), len(n_judged)) == (3, 3)
    find_all(folder)
    assert (len(n_found), len(n_judged)) == (3, 6)
    find_all(folder, PoleRequest(layers=(0,), force=True))
    assert (len(n_found), len(n_judged)) == (4, 7)


def test_what_was_found_before_the_end_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = find_all(folder).path.read_bytes()
    (folder / poles_file(PoleSettings())).unlink()

    def stopped(*args: object) -> Poles:
        if args[1] == 2:
            raise KeyboardInterrupt
        return find_poles(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(finding_all, "find_poles", stopped)
    monkeypatch.setattr(finding_all, "_n_at_once", lambda *_: 1)
    with pytest.raises(KeyboardInterrupt):
        find_all(folder)
    assert {layer for layer, _ in load_every_pole(folder)} == {0, 1}
    monkeypatch.setattr(finding_all, "find_poles", find_poles)
    assert find_all(folder).path.read_bytes() == whole


def test_ctrl_c_while_maps_are_found_keeps_those_that_are_ready(folder: Path) -> None:
    class Stopping(Silent):
        n_ready = 0

        def advance(self, n: int) -> None:
            self.n_ready += n
            if self.n_ready == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_all(folder, PoleRequest(with_controls=False), Stopping())
    assert len(load_every_pole(folder)) == 2
    assert len(find_all(folder, PoleRequest(with_controls=False)).poles) == 3


def test_labels_of_older_rules_are_made_anew_and_others_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    words = Words([" self", *(f" filler{k}" for k in range(60))], rng.integers(0, 61, 20 * 100))
    projection = Projection.load(folder)
    fires = 5.0 * words.where(" self")[:, None] + rng.normal(0, 0.1, (len(words.ids), 500))
    sizes = {key: projection.figures(*key).n_neurons for key in projection.maps}
    # Neurons of the other layers never fire: their poles have no label.
    drawn = {(1, "mlp_post"): fires[:, : sizes[1, "mlp_post"]]}
    with_examples(projection, words, drawn).save(folder, force=True)
    labelled = []

    def labelling(*args: object) -> Poles:
        labelled.append(args)
        return label_poles(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(finding_all, "label_poles", labelling)
    find_all(folder, PoleRequest(with_controls=False))
    kept = load_every_pole(folder)
    assert {pole.label for pole in kept[1, "mlp_post"].poles} == {"self"}
    assert {pole.label for pole in kept[0, "mlp_post"].poles} == {None}
    n_labelled = len(labelled)
    find_all(folder, PoleRequest(with_controls=False))
    assert len(labelled) == n_labelled
    # As a file is that another version wrote.
    path = folder / poles_file(PoleSettings())
    text = re.sub(r'"label": "self"', '"label": "old"', path.read_text())
    path.write_text(re.sub(r'\n *"label_rules": \d+,', "", text))
    assert {pole.label for pole in load_every_pole(folder)[1, "mlp_post"].poles} == {"old"}
    find_all(folder, PoleRequest(with_controls=False))
    assert {pole.label for pole in load_every_pole(folder)[1, "mlp_post"].poles} == {"self"}


def test_ends_of_an_axis_are_told_by_their_highest_activations() -> None:
    projection = projected(rows_of(axis=0.5))
    poles = judge_poles(projection, find_poles(projection, 0, SITE))
    ends = [k for k, pole in enumerate(poles.poles) if pole.axis is not None]
    assert len(ends) == 2
    rng = np.random.default_rng(0)
    words = Words(["one", "other", *(f" f{k}" for k in range(60))], rng.integers(0, 62, 2000))
    # One end fires on a word, and more so against another; its other end the other way round.
    signal = 5.0 * words.where("one") - 9.0 * words.where("other")
    sides = [1.0 if k == ends[0] else -1.0 for k in poles.labels.tolist()]
    fires = signal[:, None] * np.array(sides) + rng.normal(0, 0.1, (2000, N))
    labelled = label_poles(with_examples(projection, words, {(0, SITE): fires}), poles)
    assert [labelled.poles[k].label for k in ends] == ["one", "other"]
    # What is no end is told by the stronger one.
    bare = replace(poles, poles=tuple(replace(pole, axis=None) for pole in poles.poles))
    labelled = label_poles(with_examples(projection, words, {(0, SITE): fires}), bare)
    assert [labelled.poles[k].label for k in ends] == ["other ↓", "other"]


def test_maps_without_statistics_have_the_poles_of_their_map(tmp_path: Path) -> None:
    positions = torch.randn(60, 3, generator=torch.Generator().manual_seed(1))
    project(positions).save(tmp_path / "map")
    found = find_all(tmp_path / "map")
    assert found.path.name == "positions-3.json"
    assert found.poles[0].settings == MAP_POLES
    assert "controls" in found.poles[0].reasons


def test_planted_groups_are_distinct_in_the_file(tmp_path: Path) -> None:
    projected(rows_of(groups=(8, 12))).save(tmp_path / "map")
    find_all(tmp_path / "map")
    kept = load_poles(tmp_path / "map", 0, SITE)
    assert kept is not None
    assert kept.n_neurons == N
    assert kept.n_distinct == 2


def test_mistakes_are_told_before_the_work(folder: Path) -> None:
    with pytest.raises(SettingError) as caught:
        PoleRequest(layout="stress-3d", space="correlation")
    assert (caught.value.setting, caught.value.value) == ("layout", "stress-3d")
    with pytest.raises(SettingError) as caught:
        PoleRequest(min_cluster_size=1)
    assert caught.value.setting == "min_cluster_size"
    with pytest.raises(UserError):
        find_all(folder, PoleRequest(layers=(9,)))
    assert not (folder / "poles").exists()
