"""What the colours and sizes of a map mean, and what its points tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hover:
    """What a point tells when it is pointed at: a number, or one of some names."""

    label: str
    values: NDArray[np.floating]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Legend:
    """What colours and sizes mean: groups with the index of their colour, if any, or a scale."""

    label: str
    items: tuple[tuple[str, int | None], ...] | None = None
    low: str = ""
    high: str = ""
    signed: bool = False
    size: str = ""
