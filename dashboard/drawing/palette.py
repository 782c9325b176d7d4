"""Colours that people can distinguish, including colour-blind people: tables of 256 for the map.

If light and dark pages need different colours, there is a table for each, in the same order of
hues.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

# Index 0 is for neurons in no group.
NO_GROUP = 0
_NO_GROUP_COLORS = ("#a3a9b1", "#6d747d")
# Groups without their own colour.
_OTHER_COLORS = ("#56606b", "#c9d1d9")
# Found by search: no two are close, and none is close to the page's greys, for people who lack a
# receptor neither; each has a contrast of 3 to its page. No more than eight do.
_GROUPS = (
    ("#e85203", "#ff9119"),
    ("#0e94f8", "#1184fb"),
    ("#3d9171", "#12c98e"),
    ("#a23ea6", "#ee9ff4"),
    ("#3e41ee", "#9d5bb0"),
    ("#0b426c", "#85fefa"),
    ("#5c010f", "#b95803"),
    ("#5d5303", "#feec5a"),
)
N_GROUPS = len(_GROUPS)
OTHER_GROUP = N_GROUPS + 1
# Parts of cividis, made for colour-blind readers (Nuñez et al. 2018,
# doi:10.1371/journal.pone.0199239): higher is darker on light pages, and lighter on dark pages.
_SEQUENTIAL = (
    ("#d9c45c", "#b3a26d", "#8a8678", "#707173", "#575d6d", "#3b496c", "#123570", "#00224e"),
    ("#34456b", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"),
)
# Blue below zero, orange above, grey between: visible on white and on black.
_DIVERGING = ("#0b5fb0", "#3f8fd6", "#86b4dc", "#a9adb3", "#e0a173", "#dd7a2c", "#c2500a")


def sequential(*, dark: bool = False) -> Bytes:
    """(256, 3) uint8: higher values contrast more with the page."""
    return _blend(_SEQUENTIAL[dark])


def diverging() -> Bytes:
    """(256, 3) uint8: index 128 is zero."""
    return _blend(_DIVERGING)


def groups(*, dark: bool = False) -> Bytes:
    """(256, 3) uint8: index 0 is no group, 1 to :data:`N_GROUPS` are groups, the rest is grey."""
    table = np.tile(np.array(_rgb(_OTHER_COLORS[dark]), dtype=np.uint8), (256, 1))
    table[NO_GROUP] = _rgb(_NO_GROUP_COLORS[dark])
    table[1:OTHER_GROUP] = [_rgb(pair[dark]) for pair in _GROUPS]
    return table


def group_index(groups_: NDArray[np.integer]) -> Bytes:
    """The index of a group's colour; the first groups have their own colours, −1 is no group."""
    index = np.minimum(groups_ + 1, OTHER_GROUP)
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
