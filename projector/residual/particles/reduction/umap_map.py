"""UMAP: positions that keep neighbours (McInnes, Healy & Melville 2018, arXiv:1802.03426)."""

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


def fit_umap(
    rows: Tensor,
    *,
    dim: int,
    neighbours: int = 15,
    seed: int = 0,
    is_centred: bool = True,
    progress: Progress | None = None,
) -> Fitted:
    """UMAP by cosine distance, in one thread, so that equal seeds give equal positions.

    Args:
        rows: (n, W), more than ``neighbours``.
        dim: dimensions of the map.
        neighbours: how many nearest of each row it looks at.
        seed: of its start and its steps.
        is_centred: not used: its positions have mean 0.
        progress: told of the search for neighbours, and of the epochs after it.
    """
    import torch

    epochs = _Epochs(progress or Silent(), len(rows))

    with _quietly():
        import umap  # compiles its kernels when imported, which takes seconds
    # Cosines don't change with scale, and squares of lengths stay well inside of float32.
    scale = float(rows.double().square().mean().sqrt()) or 1.0
    reducer = umap.UMAP(
        n_components=dim,
        n_neighbors=neighbours,
        metric=UMAP.metric,
        random_state=seed,
        n_jobs=1,
        tqdm_kwds=epochs.asked(),
    )
    with _quietly():
        found = reducer.fit_transform((rows / scale).numpy())
    epochs.progress = Silent()
    middle = torch.from_numpy(found).double().mean(dim=0)

    def place(others: Tensor) -> Tensor:
        if not len(others):
            return torch.zeros(0, dim)
        with _quietly():
            placed = reducer.transform((others / scale).numpy())
        return (torch.from_numpy(placed).double() - middle).float()

    return Fitted((torch.from_numpy(found).double() - middle).float(), place)


class _Epochs:
    """Where UMAP writes how many epochs are done, and who is told."""

    def __init__(self, progress: Progress, n: int) -> None:
        self.progress = progress
        self._stage = f"UMAP of {n:,} states"
        self._done: int | None = None
        progress.begin(f"{self._stage}: neighbours", None, "")

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
