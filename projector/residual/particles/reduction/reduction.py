"""What a way to reduce states to a few dimensions tells of itself, and what fitting it gives.

Nothing heavy is imported here, nor by the records, so that commands can ask for words alone.
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
    """Where particles are placed.

    Attributes:
        positions: (F, P, 3) float32, z = 0 if the picture has two dimensions; NaN for what has
            no place.
        name: of the reduction.
        per_layer: whether each frame has a map of its own.
        linear: whether the map is linear, so that variance explained is defined.
        notes: for people.
    """

    positions: Tensor
    name: str
    per_layer: bool
    linear: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fitted:
    """A map that was fitted.

    Attributes:
        positions: (n, dim) float32 of the rows that it was fitted on, in their order.
        placing: places rows (m, W) that it did not see, (m, dim) float32; None if the method
            can't.
        explained: the share of the rows' variance that the map keeps; None if the map is not
            linear, or where the rows are all the same.
    """

    positions: Tensor
    placing: Callable[[Tensor], Tensor] | None = None
    explained: float | None = None

    def place(self, rows: Tensor) -> Tensor:
        """Positions (m, dim) float32 of rows (m, W) that the map was not fitted on.

        Raises:
            SettingError: on ``fit``, where the method can only place the rows it was fitted on.
        """
        if self.placing is None:
            raise no_place_for_others()
        return self.placing(rows)


def no_place_for_others() -> SettingError:
    """The error of a method that places no rows but those it was fitted on."""
    return SettingError(
        "fit",
        "corpus",
        "needs a reduction that can place states it was not fitted on",
        "fit on the prompt, or choose pca or umap",
    )


class Fit(Protocol):
    """Fits a map on rows."""

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
        """The map fitted on ``rows``.

        Args:
            rows: (n, W) float32, all of them finite, at least ``least_rows``.
            dim: dimensions of the map, 2 or 3.
            neighbours: nearest neighbours that UMAP looks at; others ignore it.
            seed: of everything random.
            is_centred: whether a linear map takes the mean off first; others ignore it.
            progress: told of the stages.
        """


@dataclass(frozen=True)
class Reduction:
    """A way to place states in two or three dimensions.

    Attributes:
        name: as settings have it.
        words: its name for a person.
        help: what it keeps; follows its name and a colon.
        is_linear: whether positions are a linear map of the rows, an orthogonal projection.
        metric: what "near" means between rows: of the lines, and of the neighbours that are to be
            kept.
        places_others: whether it places rows that it was not fitted on.
        least_rows: the fewest rows that it can be fitted on, from ``dim`` and ``neighbours``.
        fit: see :class:`Fit`.
        reads: the settings that it alone reads, such as ``neighbours``.
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
