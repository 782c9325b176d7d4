"""Colours that people tell apart, also those who see few: tables of 256 for the map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# Index 0 is grey, for neurons in no group.
NO_GROUP = 0
_GREY = "#b4b8bd"
# Okabe and Ito 2008, without black and yellow, which a page of either theme swallows; then Paul
# Tol's muted scheme. The first eight and the grey are told apart by those who lack a receptor too.
_GROUPS = (
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#882255",
    "#999933",
    "#44AA99",
    "#AA4499",
    "#88CCEE",
    "#CC6677",
    "#6A5ACD",
    "#117733",
)
N_GROUPS = len(_GROUPS)
# Cividis, made for colour-blind readers (Nuñez et al. 2018, doi:10.1371/journal.pone.0199239).
_SEQUENTIAL = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)
# Blue for below zero, orange for above, grey between: to be seen on white and on black.
_DIVERGING = ("#0b5fb0", "#3f8fd6", "#86b4dc", "#a9adb3", "#e0a173", "#dd7a2c", "#c2500a")


def sequential() -> Bytes:
    """(256, 3) uint8, dark to light."""
    return _blend(_SEQUENTIAL)


def diverging() -> Bytes:
    """(256, 3) uint8: index 128 is zero."""
    return _blend(_DIVERGING)


def groups() -> Bytes:
    """(256, 3) uint8: index 0 is no group; others go round."""
    colors = np.array([_rgb(color) for color in _GROUPS])
    table = colors[(np.arange(256) - 1) % len(colors)]
    table[NO_GROUP] = _rgb(_GREY)
    return table.astype(np.uint8)


def group_index(groups_: NDArray[np.integer]) -> Bytes:
    """The index of a group's colour: groups 0, 1, … go round, −1 is no group."""
    index = 1 + groups_ % len(_GROUPS)
    return np.where(groups_ < 0, NO_GROUP, index).astype(np.uint8)


def hex_of(table: Bytes, index: int) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{int(part):02x}" for part in table[index])


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _blend(colors: tuple[str, ...]) -> Bytes:
    stops = np.array([_rgb(color) for color in colors], dtype=np.float64)
    # 128 is the middle, so that zero has the middle's colour.
    place = np.clip(np.arange(256) / 256, 0, 1) * (len(colors) - 1)
    low = np.minimum(place.astype(int), len(colors) - 2)
    share = (place - low)[:, None]
    return np.round(stops[low] * (1 - share) + stops[low + 1] * share).astype(np.uint8)
