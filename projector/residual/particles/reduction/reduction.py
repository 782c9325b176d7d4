"""The definition of a reduction of states to a few dimensions, and of its fitted map.

No heavy package is imported here or by the records, so that commands can show help quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from projector.errors import SettingError
from projector.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

Metric = Literal["euclidean", "cosine"]


@dataclass(frozen=True, eq=False)
class Reduced:
    """The positions of particles.

    Attributes:
        positions: (F, P, 3) float32, z = 0 if the picture has two dimensions; NaN for no position.
        name: name of the reduction.
        per_layer: whether each frame has its own map.
        linear: whether the map is linear, so that variance explained is defined.
        notes: remarks for the user.
    """

    positions: Tensor
    name: str
    per_layer: bool
    linear: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted map.

    Attributes:
        positions: (n, dim) float32, positions of the rows that it was fitted on, in their order.
        placing: maps new rows (m, W) to positions (m, dim) float32; None if the method can't.
        explained: the share of the rows' variance that the map keeps; None if the map isn't linear,
            or all rows are the same.
    """

    positions: Tensor
    placing: Callable[[Tensor], Tensor] | None = None
    explained: float | None = None

    def place(self, rows: Tensor) -> Tensor:
        """Place rows (m, W) that the map was not fitted on; (m, dim) float32.

        Raises:
            SettingError: on ``fit``, if the method can only place the rows it was fitted on.
        """
        if self.placing is None:
            raise no_place_for_others()
        return self.placing(rows)


def no_place_for_others() -> SettingError:
    """The error for a method that can only place the rows it was fitted on."""
    return SettingError(
        "fit",
        "corpus",
        "needs a reduction that can place states it was not fitted on",
        "fit on the prompt, or choose pca or umap",
    )


class Fit(Protocol):
    """A function that fits a map on rows."""

    def __call__(
        self,
        rows: Tensor,
        *,
        dim: int,
        neighbours: int = 15,
        seed: int = 0,
        is_centred: bool = True,
        progress: Progress | None = None,
    ) -> Fitted:
        """Fit a map on ``rows``.

        Args:
            rows: (n, W) float32, all of them finite, at least ``least_rows``.
            dim: dimensions of the map, 2 or 3.
            neighbours: number of nearest neighbours for UMAP; ignored by every other method.
            seed: seed of all random choices.
            is_centred: whether a linear map subtracts the mean first; ignored by every other
                method.
            progress: receives progress reports.
        """


@dataclass(frozen=True)
class Reduction:
    """A method that places states in two or three dimensions.

    Attributes:
        name: the name in settings.
        words: the displayed name.
        help: what it preserves; follows its name and a colon.
        is_linear: whether positions are a linear map of the rows, an orthogonal projection.
        metric: metric between rows, for lines and for the neighbours to keep.
        places_others: whether it can place rows that it was not fitted on.
        least_rows: the smallest number of rows to fit, from ``dim`` and ``neighbours``.
        fit: see :class:`Fit`.
        reads: the settings that only it reads, such as ``neighbours``.
    """

    name: str
    words: str
    help: str
    is_linear: bool
    metric: Metric
    places_others: bool
    least_rows: Callable[[int, int], int]
    fit: Fit
    reads: frozenset[str] = frozenset()
