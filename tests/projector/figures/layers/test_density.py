"""The map of particles as a density: what it sums to, who is in it, and whose hue it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from projector.figures.layers import film
from projector.figures.layers.cloud.densities import Clouds, read_clouds
from projector.figures.layers.cloud.shading import draw_densities, shade
from projector.figures.layers.density import write_density

N_CELLS = (200, 200)


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film, "find_ffmpeg", lambda: None)


def saved(
    positions: np.ndarray, n_prompts: int = 1, **more: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    n_frames, n_particles, _ = positions.shape
    report = {
        "model": "m",
        "frames": [{"layer": i, "name": f"layer {i}"} for i in range(n_frames)],
        "prompts": [{"text": "a b"}, {"text": None}][:n_prompts],
    }
    owners = np.arange(n_particles, dtype=np.int32) % n_prompts
    return report, {"positions": positions.astype(np.float32), "owner_prompt": owners, **more}


def cloud(n_frames: int = 3, n_particles: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_frames, n_particles, 3))


def read(positions: np.ndarray, **more: Any) -> Clouds:
    found = read_clouds(*saved(positions, **more))
    assert found is not None
    return found


def test_a_density_sums_to_one_and_is_that_of_its_particles() -> None:
    positions = cloud()
    clouds = read(positions)
    assert not clouds.follows
    found = clouds.density(1, 0, N_CELLS)
    cell = np.prod((clouds.high[1] - clouds.low[1]) / N_CELLS) / clouds.spread[1] ** 2
    assert found.sum() * cell == pytest.approx(1, abs=0.02)
    # Scott's rule, and a kernel a particle, worked out at one cell.
    assert clouds.bandwidth == pytest.approx(12 ** (-1 / 6))
    width = clouds.bandwidth * clouds.spread[1]
    step = (clouds.high[1] - clouds.low[1]) / N_CELLS
    at = clouds.low[1] + (np.array([50, 80]) + 0.5) * step
    away = ((positions[1, :, :2].astype(np.float32) - at) ** 2).sum(axis=1)
    by_hand = np.exp(-away / (2 * width**2)).mean() / (2 * np.pi * clouds.bandwidth**2)
    assert found[200 - 1 - 80, 50] == pytest.approx(by_hand)


def test_outlying_and_unborn_particles_and_those_without_place_are_left_out() -> None:
    positions = cloud()
    positions[:, 0] = 1000
    positions[:, 1] = np.nan
    born = np.zeros(12, dtype=np.int32)
    born[2] = 2
    outlying = np.zeros(12, dtype=np.uint8)
    outlying[0] = 1
    clouds = read(positions, born=born, outlying=outlying)
    assert clouds.n_left_out == 2
    assert clouds.high.max() < 100
    assert list(clouds.is_shown[:, 2]) == [False, False, True]
    assert clouds.is_shown[:, 3:].all()


def test_the_window_follows_a_stream_that_grows() -> None:
    growth = np.array([1, 4, 16, 64, 256])[:, None, None]
    one = cloud(1)
    clouds = read(one * growth)
    assert clouds.follows
    # What only grows looks the same in every frame.
    densities = [clouds.density(i, 0, (40, 40)) for i in range(5)]
    for each in densities[1:]:
        np.testing.assert_allclose(each, densities[0], rtol=1e-3, atol=1e-6)
    assert (clouds.positions[..., 0] < clouds.high[:, None, 0]).all()


def test_each_prompt_has_a_hue_and_both_are_dark() -> None:
    one, nothing = np.ones((1, 1)), np.zeros((1, 1))
    blue, orange, both = (
        shade(each)[0, 0].astype(int) for each in ([one, nothing], [nothing, one], [one, one])
    )
    assert blue[2] > blue[0]
    assert orange[0] > orange[2]
    assert both.sum() < min(blue.sum(), orange.sum())
    assert (shade([nothing, nothing]) == 255).all()


def test_one_scale_is_over_all_frames() -> None:
    positions = cloud(2, 30)
    positions[1] *= 2
    first, second = draw_densities(read(positions))
    assert first.shape == second.shape
    # The wider cloud is nowhere as dark.
    middle = slice(250, -120)
    assert first[middle].reshape(-1, 3).sum(axis=1).mean() > 0
    shaded = [each[middle, 30:-30].astype(int)[..., 0] for each in (first, second)]
    assert np.percentile(shaded[0], 2) < np.percentile(shaded[1], 2)


@pytest.mark.parametrize("n_particles", [1, 2, 500])
def test_a_film_of_a_frame_a_layer_is_written(n_particles: int, tmp_path: Path) -> None:
    report, tensors = saved(cloud(3, n_particles), n_prompts=min(2, n_particles))
    written = write_density(report, tensors, tmp_path)
    assert [path.name for path in written.paths] == ["density.gif"]
    with Image.open(written.paths[0]) as image:
        assert image.n_frames == 3


def test_where_no_particle_can_be_shown_there_is_a_note(tmp_path: Path) -> None:
    report, tensors = saved(np.full((2, 3, 3), np.nan))
    written = write_density(report, tensors, tmp_path)
    assert written.paths == ()
    assert written.note is not None
    assert not list(tmp_path.iterdir())
