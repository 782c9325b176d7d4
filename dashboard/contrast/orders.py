"""What a page asks of a contrast: two sets of prompts, as typed or uploaded, and how to read them.

The library reads sets from files, so that a page and the command hold to the same rules.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from projector.errors import UserError
from projector.progress import Progress
from projector.residual.contrast.prompts import check_files
from projector.residual.contrast.settings import ContrastSettings
from projector.residual.subject import Subject

_MOST_NAME = 40
_NO_FOLDER = re.compile(r"[^\w .-]+")


@dataclass(frozen=True)
class Typed:
    """One set of prompts.

    Attributes:
        name: what it is called; a file's own where it was uploaded.
        text: one prompt a line, or lines of JSON.
        is_json: whether it is lines of JSON.
    """

    name: str
    text: str
    is_json: bool = False

    @property
    def file_name(self) -> str:
        """A name that any system takes for a file."""
        stem = _NO_FOLDER.sub(" ", self.name).strip(" .")[:_MOST_NAME].strip(" .")
        return f"{stem or 'prompts'}.{'jsonl' if self.is_json else 'txt'}"


@dataclass(frozen=True)
class ContrastOrder:
    """A contrast that is asked for.

    Attributes:
        pair: of the project's own; None where both sets are given.
        positive, negative: the sets; None for a pair.
        at: ``last`` or ``mean``.
        keep_outliers: whether tokens with outlier norms stay.
    """

    pair: str | None = None
    positive: Typed | None = None
    negative: Typed | None = None
    at: str = "last"
    keep_outliers: bool = False


def check_order(order: ContrastOrder) -> None:
    """Raise a UserError if the sets can't be used, whatever the model: none has to be loaded."""
    with _as_settings(order) as settings:
        check_files(settings)


def run_order(subject: Subject, order: ContrastOrder, progress: Progress) -> dict[str, Any]:
    """The report of a contrast, as ``report.json`` holds it.

    Raises:
        UserError: see :func:`projector.residual.contrast.report.contrast`.
    """
    # Takes SciPy and scikit-learn with it, which no other page needs.
    from projector.residual.contrast.report import contrast

    with _as_settings(order) as settings:
        return contrast([subject], **vars(settings), progress=progress).as_dict()


@contextmanager
def _as_settings(order: ContrastOrder) -> Iterator[ContrastSettings]:
    """The order as settings of the library; sets are files for a while, which errors call by their
    names alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            yield _settings(order, folder)
        except UserError as error:
            raise _without_folder(error, folder) from error


def _settings(order: ContrastOrder, folder: Path) -> ContrastSettings:
    """The order as settings of the library; its sets are written into ``folder``."""
    if order.positive is None or order.negative is None:
        return ContrastSettings(pair=order.pair, at=order.at, keep_outliers=order.keep_outliers)
    paths = {}
    for side, typed in (("positive", order.positive), ("negative", order.negative)):
        (folder / side).mkdir()
        paths[side] = folder / side / typed.file_name
        paths[side].write_text(typed.text, encoding="utf-8", errors="replace")
    return ContrastSettings(
        positive=paths["positive"],
        negative=paths["negative"],
        at=order.at,
        keep_outliers=order.keep_outliers,
    )


def _without_folder(error: UserError, folder: Path) -> UserError:
    """The error, with a file by its name alone."""
    record = error.to_record()
    places = [f"{folder / side}/" for side in ("positive", "negative")]
    for place in places:
        record["parts"] = [
            part.replace(place, "") if isinstance(part, str) else part for part in record["parts"]
        ]
    record["value"] = None
    return UserError.of_record(record)
