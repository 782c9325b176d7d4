"""The files that keep poles: nothing is lost, nothing that was there is rewritten."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor

from projector.errors import SettingError
from projector.projection.overview import read_saved
from projector.projection.projection import Projection
from projector.storage import replacing
from pruning.poles import files as room
from pruning.poles.files import (
    OLD_FILE,
    OLDER,
    check_poles_file,
    load_poles,
    poles_file,
    save_poles,
)
from pruning.poles.finding import find_poles
from pruning.poles.poles import MAP_POLES, ON_THE_MAP, SPACES, PoleSettings
from tests.pruning.poles.test_poles import NAME, covariance_of, planted_activations, project
from tests.refused import refused_by_the_disk, refused_naming

GOLDEN = Path(__file__).parents[2] / "golden" / "projection-v1" / "stress"
LAYERS = 8
OTHER = "stress-3d-seed1"


def made(layers: int = 2) -> Projection:
    rows, _ = planted_activations()
    positions: Tensor = torch.randn(67, 3, generator=torch.Generator().manual_seed(3))
    positions[9] = torch.nan
    return project(positions, covariance_of(rows), layers=layers)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Projection]:
    projection = made()
    projection.save(tmp_path / "map")
    return tmp_path / "map", projection


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("space", SPACES)
def test_poles_are_read_back_as_they_were(saved: tuple[Path, Projection], space: str) -> None:
    folder, projection = saved
    settings = PoleSettings(space=space, selection="eom", epsilon=0.1)
    poles = find_poles(projection, 1, settings=settings)
    assert poles.poles
    assert save_poles(folder, [poles]) == folder / "poles" / f"{space}-3-epsilon0.1.json"
    again = load_poles(folder, 1, settings=settings)
    assert again is not None
    assert torch.equal(again.labels, poles.labels)
    assert again.labels.dtype == torch.int64
    assert torch.equal(again.strengths, poles.strengths)
    assert again.strengths.dtype == torch.float32
    for name in ("layer", "site", "settings", "poles", "undefined", "noise_share", "validity"):
        assert getattr(again, name) == getattr(poles, name), name
    assert again.reasons == poles.reasons
    assert again.as_dict() == poles.as_dict()
    assert load_poles(folder, 0, settings=settings) is None
    assert load_poles(folder, 1, "attn_out", settings) is None
    assert load_poles(folder, 1, settings=replace(settings, epsilon=0.2)) is None


def test_other_settings_are_another_file_and_equal_ones_replace(
    saved: tuple[Path, Projection],
) -> None:
    folder, projection = saved
    before = tree(folder)
    first, second = PoleSettings(), PoleSettings(min_cluster_size=5)
    path = save_poles(folder, [find_poles(projection, layer, settings=first) for layer in (0, 1)])
    alone = path.read_bytes()
    save_poles(folder, [find_poles(projection, 0, settings=second)])
    assert all(load_poles(folder, 0, settings=s) is not None for s in (first, second))
    assert path.read_bytes() == alone
    fake = replace(find_poles(projection, 0, settings=first), noise_share=0.125)
    save_poles(folder, [fake])
    replaced = load_poles(folder, 0, settings=first)
    assert replaced is not None
    assert replaced.noise_share == 0.125
    assert load_poles(folder, 1, settings=first) is not None
    # Whatever came first, equal content is equal bytes.
    path.unlink()
    save_poles(folder, [find_poles(projection, layer, settings=first) for layer in (1, 0)])
    assert path.read_bytes() == alone
    assert str(folder) not in alone.decode()
    after = tree(folder)
    assert set(after) - set(before) == {poles_file(first), poles_file(second)}
    assert all(after[name] == content for name, content in before.items())


def test_settings_that_mean_the_same_are_one_file(saved: tuple[Path, Projection]) -> None:
    folder, projection = saved
    one, other = PoleSettings(min_cluster_size=5), PoleSettings(min_cluster_size=5, min_samples=5)
    save_poles(
        folder,
        [find_poles(projection, 0, settings=one), find_poles(projection, 1, settings=other)],
    )
    assert all(load_poles(folder, layer, settings=one) is not None for layer in (0, 1))
    assert len(list((folder / "poles").iterdir())) == 1


def test_all_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    projection = made(LAYERS)
    projection.save(tmp_path / "map")
    sizes = (3, 4)
    found = {
        (layer, size): find_poles(projection, layer, settings=PoleSettings(min_cluster_size=size))
        for layer in range(LAYERS)
        for size in sizes
    }
    together = Barrier(len(found))

    def add(key: tuple[int, int]) -> None:
        together.wait()
        save_poles(tmp_path / "map", [found[key]])

    with ThreadPoolExecutor(len(found)) as pool:
        list(pool.map(add, found))
    for (layer, size), poles in found.items():
        kept = load_poles(tmp_path / "map", layer, settings=PoleSettings(min_cluster_size=size))
        assert kept is not None, (layer, size)
        assert kept.as_dict() == poles.as_dict()
    assert not list((tmp_path / "map").rglob(".*"))


def assert_upgraded(new: dict[str, Any], old: dict[str, Any], space: str) -> None:
    """What an older version kept is there as it was, numbered by margin; what it lacks is None."""
    lacking = ("label", "distinct", "beyond_spectrum", "axis")
    assert new["controls"] is None
    # Those of a map never get controls.
    why = ON_THE_MAP if space == "positions" else OLDER
    assert new["reasons"] == old["reasons"] | {"controls": why, "label": OLDER}
    assert [[pole[name] for name in lacking] for pole in new["poles"]] == [[None] * 4] * len(
        new["poles"]
    )
    same = ("layer", "site", "n_neurons", "undefined", "noise_share", "validity")
    assert {name: new[name] for name in same} == {name: old[name] for name in same}

    def facts(poles: list[dict[str, Any]]) -> list[Any]:
        """Each pole with the neurons of its opposite, whatever the poles' numbers."""
        return sorted(
            (
                [value for name, value in pole.items() if name not in ("opposite", *lacking)],
                None if pole["opposite"] is None else poles[pole["opposite"]]["neurons"],
            )
            for pole in poles
        )

    assert facts(new["poles"]) == facts(old["poles"])
    margins = [pole["within_rho"] - (pole["between_rho"] or 0) for pole in new["poles"]]
    assert margins == sorted(margins, reverse=True)


def test_poles_of_version_2_are_read_and_written_as_of_version_3(
    saved: tuple[Path, Projection],
) -> None:
    folder, projection = saved
    found = [find_poles(projection, layer) for layer in (0, 1)]
    path = save_poles(folder, found)
    content = json.loads(path.read_text("utf-8"))
    content["format_version"] = 2
    for kept in content["maps"].values():
        kept.pop("controls")
        # By size, as it was.
        sizes = [-pole["size"] for pole in kept["poles"]]
        order = sorted(range(len(sizes)), key=lambda k: sizes[k])
        poles = [kept["poles"][k] for k in order]
        for pole in poles:
            if pole["opposite"] is not None:
                pole["opposite"] = order.index(pole["opposite"])
            for name in ("label", "distinct", "beyond_spectrum", "axis"):
                pole.pop(name)
        kept["poles"] = poles
    path.write_text(json.dumps(content), "utf-8")
    again = load_poles(folder, 1)
    assert again is not None
    assert again.poles == found[1].poles
    assert torch.equal(again.labels, found[1].labels)
    assert again.reasons == found[1].reasons | {"controls": OLDER, "label": OLDER}
    save_poles(folder, [found[0]])
    assert json.loads(path.read_text("utf-8"))["format_version"] == 3
    again = load_poles(folder, 1)
    assert again is not None
    assert again.poles == found[1].poles


def test_poles_of_version_1_are_read_and_new_ones_stand_beside_them(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "old"))
    before = tree(folder)
    old = json.loads(before[OLD_FILE])["results"]
    assert old
    for entry in old.values():
        settings = PoleSettings(**entry["settings"])
        for kept in entry["maps"].values():
            found = load_poles(folder, kept["layer"], kept["site"], settings)
            assert found is not None
            assert_upgraded(found.as_dict(), kept, settings.space)
    projection = Projection.load(folder)
    layer, site = projection.maps[0]
    other = replace(MAP_POLES, selection="leaf")
    for settings in (MAP_POLES, other):
        save_poles(folder, [find_poles(projection, layer, site, settings)])
        assert load_poles(folder, layer, site, settings) is not None
    # Those of the other layer are still the old file's.
    assert load_poles(folder, 1, settings=MAP_POLES) is not None
    after = tree(folder)
    assert set(after) - set(before) == {poles_file(MAP_POLES), poles_file(other)}
    assert all(after[name] == content for name, content in before.items())


def test_poles_of_a_replaced_projection_are_none_of_the_new_one(
    saved: tuple[Path, Projection],
) -> None:
    folder, projection = saved
    settings = PoleSettings(min_cluster_size=5)
    save_poles(folder, [find_poles(projection, 0), find_poles(projection, 0, settings=settings)])
    kept = (folder / poles_file(settings)).read_bytes()
    before = read_saved(folder)
    other = replace(projection, facts=replace(projection.facts, versions={"torch": "another"}))
    other.save(folder, force=True)
    # Were it there all the same.
    (folder / "poles").mkdir(exist_ok=True)
    (folder / poles_file(settings)).write_bytes(kept)
    assert load_poles(folder, 0, settings=settings) is None
    # What was found in the projection that was there before is not added to this one.
    with refused_naming(f"'{folder}'"):
        save_poles(folder, [find_poles(projection, 0)], belongs_to=before)
    save_poles(folder, [find_poles(other, 0)])
    assert load_poles(folder, 0) is not None
    assert Projection.load(folder).facts.versions == other.facts.versions


def test_poles_on_the_map_belong_to_its_layout(saved: tuple[Path, Projection]) -> None:
    folder, projection = saved
    on_map, on_rho = MAP_POLES, PoleSettings()
    save_poles(folder, [find_poles(projection, 0, settings=s) for s in (on_map, on_rho)])
    kept = {s: (folder / poles_file(s)).read_bytes() for s in (on_map, on_rho)}
    name, layout = next(iter(projection.layouts.items()))
    moved = replace(layout, versions={"torch": "another"})
    replace(projection, layouts={name: moved}).save(folder, force=True)
    (folder / "poles").mkdir(exist_ok=True)
    for settings, content in kept.items():
        (folder / poles_file(settings)).write_bytes(content)
    assert load_poles(folder, 0, settings=on_rho) is not None
    assert load_poles(folder, 0, settings=on_map) is None


def with_another_layout(projection: Projection) -> Projection:
    """The projection with a second layout, in which every neuron is elsewhere."""
    (layout,) = projection.layouts.values()
    other: Tensor = torch.randn(67, 3, generator=torch.Generator().manual_seed(4))
    positions = {name: other.clone() for name in layout.positions}
    return replace(
        projection, layouts={**projection.layouts, OTHER: replace(layout, positions=positions)}
    )


def test_each_layout_has_poles_of_its_own(tmp_path: Path) -> None:
    projection = with_another_layout(made())
    first = projection.layout_name()
    projection.save(tmp_path / "map")
    folder = tmp_path / "map"
    on_map, on_rho = MAP_POLES, PoleSettings()
    found = {
        name: find_poles(projection, 0, settings=on_map, layout=name) for name in (first, OTHER)
    }
    assert found[first].as_dict() == find_poles(projection, 0, settings=on_map).as_dict()
    assert not torch.equal(found[first].labels, found[OTHER].labels)
    save_poles(folder, [found[OTHER]], layout=OTHER)
    assert load_poles(folder, 0, settings=on_map) is None
    save_poles(folder, [found[first]], layout=first)
    for name in (None, first, OTHER):
        kept = load_poles(folder, 0, settings=on_map, layout=name)
        assert kept is not None
        assert kept.as_dict() == found[name or first].as_dict()
    # In the spaces of ρ a layout makes no difference.
    rho = find_poles(projection, 0, settings=on_rho, layout=OTHER)
    assert rho.as_dict() == find_poles(projection, 0, settings=on_rho).as_dict()
    save_poles(folder, [rho], layout=OTHER)
    assert load_poles(folder, 0, settings=on_rho) is not None
    assert {path.name for path in (folder / "poles").iterdir()} == {
        "positions-3.json",
        f"positions-3-on-{OTHER}.json",
        "correlation-3-leaf.json",
    }
    for ask in (
        lambda: find_poles(projection, 0, layout="force-7d"),
        lambda: load_poles(folder, 0, layout="force-7d"),
        lambda: check_poles_file(folder, on_rho, "force-7d"),
    ):
        with pytest.raises(SettingError) as caught:
            ask()
        assert (caught.value.setting, caught.value.value) == ("layout", "force-7d")


@pytest.mark.parametrize("name", [None, OTHER])
def test_poles_of_a_replaced_layout_are_not_saved_as_the_new_ones(
    tmp_path: Path, name: str | None
) -> None:
    projection = with_another_layout(made())
    folder = tmp_path / "map"
    projection.save(folder)
    before = read_saved(folder)
    on_map = find_poles(projection, 0, settings=MAP_POLES, layout=name)
    on_rho = find_poles(projection, 0)
    key = projection.layout_name(name)
    # Replaced meanwhile, as `projector layout --force` does it.
    moved = replace(projection.layouts[key], versions={"torch": "another"})
    replace(projection, layouts={**projection.layouts, key: moved}).save(folder, force=True)
    assert read_saved(folder).fingerprint == before.fingerprint
    with refused_naming(f"'{key}'"):
        save_poles(folder, [on_map], before, name)
    assert not (folder / "poles").exists()
    save_poles(folder, [on_rho], before, name)
    assert load_poles(folder, 0, settings=on_rho.settings) is not None


def test_a_file_under_the_name_of_other_settings_is_damaged(saved: tuple[Path, Projection]) -> None:
    folder, projection = saved
    path = save_poles(folder, [find_poles(projection, 0)])
    other = PoleSettings(min_cluster_size=7)
    path.rename(folder / poles_file(other))
    with refused_naming(path.with_name(Path(poles_file(other)).name), "damaged"):
        load_poles(folder, 0, settings=other)


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ('{"format": "of somebody else"}', "transformer-poles"),
        (
            '{"format": "transformer-poles", "format_version": 1, "results": null}',
            "results",
        ),
        (
            '{"format": "transformer-poles", "format_version": 1, '
            '"results": {"KEY": {"maps": null}}}',
            "results",
        ),
    ],
)
def test_an_old_file_that_can_not_be_read_says_what_to_do(
    saved: tuple[Path, Projection], content: str, names: str
) -> None:
    folder, _ = saved
    (folder / OLD_FILE).write_text(content.replace("KEY", PoleSettings().key))
    with refused_naming(OLD_FILE, names):
        load_poles(folder, 0)


def _break(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def broken(text: str) -> str:
        content = json.loads(text)
        change(content["maps"][NAME])
        return json.dumps(content)

    return broken


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda text: text[:-20], "damaged"),
        (lambda text: "\x00", "damaged"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: "[]", "transformer-poles"),
        (lambda text: "{}", "transformer-poles"),
        (lambda text: text.replace('version": 3', 'version": 4'), "format version 4"),
        (lambda text: text.replace('version": 3', 'version": 0'), "format version 0"),
        (lambda text: text.replace('"maps"', '"mpas"'), "damaged"),
        (lambda text: text.replace('"layer"', '"lyaer"'), "damaged"),
        (_break(lambda kept: kept.pop("validity")), "damaged"),
        (_break(lambda kept: kept.update(n_neurons=3)), "damaged"),
        (_break(lambda kept: kept.update(n_neurons=None)), "damaged"),
        (_break(lambda kept: kept["poles"][0].update(size=1)), "damaged"),
        (_break(lambda kept: kept["poles"][0].update(colour=1)), "damaged"),
        (_break(lambda kept: kept["poles"][0]["neurons"].__setitem__(0, 9 - 67)), "damaged"),
        (_break(lambda kept: kept["poles"].append(kept["poles"][0])), "damaged"),
        (_break(lambda kept: kept["poles"][0].pop("strengths")), "damaged"),
    ],
)
def test_a_damaged_file_is_one_line(
    saved: tuple[Path, Projection], damage: Callable[[str], str], names: str
) -> None:
    folder, projection = saved
    path = save_poles(folder, [find_poles(projection, 0)])
    path.write_text(damage(path.read_text("utf-8")), encoding="utf-8")
    with refused_naming(path, names):
        load_poles(folder, 0)


def test_a_write_that_fails_leaves_what_was_there(
    saved: tuple[Path, Projection], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, projection = saved
    save_poles(folder, [find_poles(projection, 0)])
    before = tree(folder)

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(replacing, "sync", full)
    with refused_by_the_disk(errno.ENOSPC, folder):
        save_poles(folder, [find_poles(projection, 1)])
    assert tree(folder) == before


def test_what_is_no_projection_or_can_not_be_written(
    saved: tuple[Path, Projection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = saved
    for ask in (lambda where: check_poles_file(where, PoleSettings()), lambda w: save_poles(w, [])):
        with refused_naming(tmp_path, "projection.json", "`projector fit`"):
            ask(tmp_path)
    check_poles_file(folder, PoleSettings())
    monkeypatch.setattr(room.os, "access", lambda *_: False)
    with refused_naming(folder):
        check_poles_file(folder, PoleSettings())
