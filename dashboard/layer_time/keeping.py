"""Keep autoencoders that a page has trained, and use them again for other pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from projector.corpus.sources import find_source
from projector.errors import UserError
from projector.progress import Progress, Silent
from projector.residual.particles.autoencoder.artifact import JSON_FILE, TENSOR_FILE, Trained
from projector.residual.particles.settings import ParticleSettings
from projector.residual.subject import Subject

_SETTINGS = ("n_particles", "width", "steps", "max_tokens", "seed")


def training_id(settings: ParticleSettings, sha256: str, dtype: str) -> str | None:
    """The id of a training; None if the settings don't train an autoencoder.

    Settings that do not change an autoencoder, such as the placement of particles, do not count. A
    file or folder of text counts by its names, sizes and times.

    Args:
        sha256: hash of the model's weights.
        dtype: dtype in which the model runs.

    Returns:
        16 hexadecimal digits.
    """
    if settings.particles != "autoencoder" or settings.autoencoder is not None:
        return None
    known: dict[str, Any] = {name: getattr(settings, name) for name in _SETTINGS}
    known |= {"model": sha256, "dtype": dtype, "corpus": settings.source}
    known["files"] = _files_of(settings.source)
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode("utf-8")).hexdigest()[:16]


def _files_of(source: str) -> list[tuple[str, int, int]]:
    """The local files that a source reads, with path, size, and time of change."""
    given = find_source(source).local_path
    if given is None:
        return []
    place = Path(given)
    found = []
    for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return found


def is_kept(folder: Path) -> bool:
    """Whether a folder holds an autoencoder, judging by the names of its files."""
    return (folder / JSON_FILE).is_file() and (folder / TENSOR_FILE).is_file()


@dataclass
class KeepingTrainer:
    """Trains an autoencoder and keeps it in a folder, unless the folder holds it already.

    Attributes:
        folder: folder of one training; give each training its own.
        train: see :func:`projector.residual.particles.autoencoder.training.train_autoencoder`.
        has_loaded: whether the last requested autoencoder was in the folder.
    """

    folder: Path
    train: Callable[..., Trained]
    has_loaded: bool = field(default=False, init=False)

    def __call__(
        self, subject: Subject, corpus: str, *, progress: Progress | None = None, **settings: Any
    ) -> Trained:
        """The autoencoder in the folder; a damaged one or one of an older version is replaced.

        It is kept when it is trained, and returned even if the folder can't be written.

        Raises:
            UserError: from ``train``.
        """
        progress = progress or Silent()
        self.has_loaded = False
        if is_kept(self.folder):
            with suppress(UserError):
                progress.begin("Reading the autoencoder trained before", None, "")
                found = Trained.load(self.folder, subject)
                progress.end()
                self.has_loaded = True
                return found
        found = self.train(subject, corpus, progress=progress, **settings)
        with suppress(UserError):
            found.save(self.folder, force=True)
            # In memory its arrays may be laid out differently, and sums then differ in their last
            # digit.
            return Trained.load(self.folder, subject)
        return found
