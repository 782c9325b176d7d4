"""Colours, measured as eyes see them: also those that lack a receptor."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboard.drawing import palette

# Linear RGB as seen without the receptor for red or for green (Machado et al. 2009,
# doi:10.1109/TVCG.2009.113, severity 1).
WITHOUT = {
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]],
}  # fmt: skip


def linear(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sRGB bytes as light."""
    share = colors / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def luminance(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    return linear(colors) @ [0.2126, 0.7152, 0.0722]


def lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB in CIELAB, in which distances are as eyes see them."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = np.clip(light, 0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [
            116 * f[..., 1] - 16,
            500 * (f[..., 0] - f[..., 1]),
            200 * (f[..., 1] - f[..., 2]),
        ],
        -1,
    )


# Of Streamlit's own themes.
PAGES = {False: [255, 255, 255], True: [14, 17, 23]}


def contrast(colors: NDArray[np.uint8], *, dark: bool) -> NDArray[np.float64]:
    """To the page, as WCAG 2 defines it."""
    found = luminance(colors) + 0.05
    page = float(luminance(np.array(PAGES[dark], dtype=np.uint8))) + 0.05
    return np.maximum(found, page) / np.minimum(found, page)


@pytest.mark.parametrize(
    "table",
    [
        palette.diverging(),
        *(make(dark=dark) for make in (palette.groups, palette.sequential) for dark in PAGES),
    ],
)
def test_a_table_has_a_colour_for_every_byte(table: NDArray[np.uint8]) -> None:
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8


@pytest.mark.parametrize("dark", PAGES)
def test_more_is_further_from_the_page(dark: bool) -> None:
    found = contrast(palette.sequential(dark=dark), dark=dark)
    assert (np.diff(found[::4]) > 0).all()
    assert found[0] > 1.5
    assert found[-1] > 10


def test_zero_is_grey_and_signs_are_two_hues() -> None:
    table = palette.diverging().astype(int)
    assert np.ptp(table[128]) < 15
    assert (table[:100, 2] > table[:100, 0] + 20).all()
    assert (table[156:, 0] > table[156:, 2] + 20).all()


@pytest.mark.parametrize("lacking", [None, *WITHOUT])
def test_signs_are_told_apart_by_everyone(lacking: str | None) -> None:
    light = linear(palette.diverging())
    if lacking is not None:
        light = light @ np.array(WITHOUT[lacking]).T
    found = lab(light)
    for k in (40, 80, 127):
        assert np.linalg.norm(found[128 - k] - found[128 + k]) > 20


def test_signs_are_seen_on_white_and_on_black() -> None:
    found = luminance(palette.diverging())
    for page in (1.0, 0.007):
        contrast = (np.maximum(found, page) + 0.05) / (np.minimum(found, page) + 0.05)
        assert contrast.min() > 1.7


def test_groups_have_colours_of_their_own_as_far_as_there_are_any() -> None:
    index = palette.group_index(np.arange(-1, 300))
    assert index.dtype == np.uint8
    assert index[0] == palette.NO_GROUP
    n = palette.N_GROUPS
    assert set(index[n + 1 :].tolist()) == {palette.OTHER_GROUP}
    for dark in PAGES:
        colors = palette.groups(dark=dark)[index]
        assert len({tuple(color) for color in colors.tolist()}) == n + 2
        assert (contrast(colors[1:], dark=dark) >= 3).all()


@pytest.mark.parametrize("lacking", [None, *WITHOUT])
@pytest.mark.parametrize("dark", PAGES)
def test_groups_are_told_apart_by_everyone(dark: bool, lacking: str | None) -> None:
    light = linear(palette.groups(dark=dark)[palette.group_index(np.arange(-1, palette.N_GROUPS))])
    if lacking is not None:
        light = light @ np.array(WITHOUT[lacking]).T
    found = lab(light)
    distance = np.linalg.norm(found[:, None] - found[None], axis=-1)
    assert distance[np.triu_indices(len(found), 1)].min() > 12


def test_a_colour_in_hexadecimal() -> None:
    table = np.array([[0, 10, 255], [1, 2, 3]], dtype=np.uint8)
    assert palette.hex_of(table, 0) == "#000aff"
    assert palette.hex_of(table, 1) == "#010203"
