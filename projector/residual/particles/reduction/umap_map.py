"""UMAP: positions that preserve neighbours (McInnes, Healy & Melville 2018, arXiv:1802.03426)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from projector.progress import Progress, Silent
from projector.residual.particles.reduction.reduction import Fitted, Reduction

if TYPE_CHECKING:
    from torch import Tensor

# Its spectral start needs some rows more than dimensions.
_LEAST_ROWS = 8
# Cosines that are in memory at a time: 64 MiB.
_BLOCK = 1 << 24


def fit_umap(
    rows: Tensor,
    *,
    dim: int,
    neighbours: int = 15,
    seed: int = 0,
    is_centred: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """Fit UMAP with cosine distance, in one thread, so that equal seeds give equal positions.

    Its neighbours are found exactly, with n²·W operations. Up to tens of thousands of rows, this is
    faster than compiling its own approximate search. A zero row has distance 1 to every other row.

    Args:
        rows: (n, W), more than ``neighbours``.
        dim: number of dimensions of the map.
        neighbours: number of nearest neighbours of each row, including the row itself.
        seed: seed of its start and its steps.
        is_centred: not used: its positions have mean 0.
        progress: reports the import, the search for neighbours, and the epochs.
    """
    import torch

    progress = progress or Silent()
    progress.begin("Loading UMAP", None, "")
    with _quietly():
        import umap  # compiles its kernels when imported, which takes seconds

    progress.end()
    epochs = _Epochs(progress, len(rows))
    units = _units(rows)
    progress.begin(f"UMAP of {len(rows):,} states: neighbours", len(rows), "states")
    near = _nearest(units, units, neighbours, is_itself=True, progress=progress)
    with _quietly():
        reducer = umap.UMAP(
            n_components=dim,
            n_neighbors=neighbours,
            metric=UMAP.metric,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(*near, _search_of(units)),
            tqdm_kwds=epochs.asked(),
        )
        found = torch.from_numpy(reducer.fit_transform(units.numpy())).double()
    epochs.progress = Silent()
    middle = found.mean(dim=0)

    def place(others: Tensor) -> Tensor:
        if not len(others):
            return torch.zeros(0, dim)
        with _quietly():
            placed = reducer.transform(_units(others).numpy())
        return (torch.from_numpy(placed).double() - middle).float()

    return Fitted((found - middle).float(), place)


def _units(rows: Tensor) -> Tensor:
    """(n, W) float32 of length 1, or 0."""
    import torch

    whole = rows.double()
    lengths = whole.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, whole / lengths, 0.0).float()


def _nearest(
    of: Tensor, among: Tensor, k: int, *, is_itself: bool = False, progress: Progress | None = None
) -> tuple[Any, Any]:
    """Of each row of length 1 the k nearest others: NumPy's (n, k) int32, and 1 − cos in float32.

    Args:
        is_itself: whether both are the same rows, each of which comes first among its own.
    """
    import torch

    indices, distances = [], []
    for some in torch.arange(len(of)).split(max(1, _BLOCK // len(among))):
        cosines = of[some] @ among.T
        if is_itself:
            cosines[torch.arange(len(some)), some] = 2.0
        found = cosines.topk(k, dim=1)
        indices.append(found.indices)
        distances.append((1 - found.values).clamp_(min=0))
        if progress is not None:
            progress.advance(len(some))
    return torch.cat(indices).int().numpy(), torch.cat(distances).numpy()


def _search_of(units: Tensor) -> Any:
    """What UMAP asks for the nearest of rows that it places afterwards."""
    from umap.umap_ import NNDescent

    class Exact(NNDescent):  # type: ignore[misc]
        """An exact search in the place of the approximate one."""

        _angular_trees = True

        def __init__(self) -> None:
            """Nothing is built."""

        def query(self, rows: Any, k: int = 10, epsilon: float = 0.0) -> tuple[Any, Any]:
            import torch

            return _nearest(torch.from_numpy(rows), units, k)

    return Exact()


class _Epochs:
    """Where UMAP writes how many epochs are done, and who is told."""

    def __init__(self, progress: Progress, n: int) -> None:
        self.progress = progress
        self._stage = f"UMAP of {n:,} states"
        self._done: int | None = None

    def asked(self) -> dict[str, Any]:
        """What UMAP gives its bar, which writes "12/200" here."""
        return {"disable": False, "file": self, "bar_format": "{n_fmt}/{total_fmt}"}

    def write(self, text: str) -> None:
        """Read what the bar shows."""
        for done, total in re.findall(r"(\d+)/(\d+)", text):
            if self._done is None:
                self.progress.begin(self._stage, int(total), "epochs")
                self._done = 0
            self.progress.advance(max(0, int(done) - self._done))
            self._done = max(int(done), self._done)

    def flush(self) -> None:
        """Nothing is held back."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep its warnings to itself, and PyTorch's threads as they are.

    It warns that a seed means one thread, and where its spectral start falls back to a random one.
    """
    import torch

    from projector.processor import in_threads

    with in_threads(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


UMAP = Reduction(
    name="umap",
    words="UMAP",
    help="keeps nearest neighbours by cosine; how far a state moves means little",
    is_linear=False,
    metric="cosine",
    places_others=True,
    least_rows=lambda dim, neighbours: max(neighbours + 1, dim + 3, _LEAST_ROWS),
    fit=fit_umap,
    reads=frozenset({"neighbours"}),
)
