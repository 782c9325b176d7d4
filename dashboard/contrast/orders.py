"""A page's order of a contrast: two typed or uploaded sets of prompts, and how to read them.

The library reads sets from files, so a page and the command follow the same rules.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from projector.errors import UserError, named
from projector.progress import Progress
from projector.residual.contrast.pairs.registry import DEFAULT_PAIR, PAIRS
from projector.residual.contrast.prompts import FEWEST_PROMPTS, check_files
from projector.residual.contrast.settings import ContrastSettings
from projector.residual.subject import Subject

_MOST_NAME = 40
_NO_FOLDER = re.compile(r"[^\w .-]+")
_AT_WORDS = {"last": "the last token", "mean": "the mean of tokens"}


@dataclass(frozen=True)
class Typed:
    """One set of prompts.

    Attributes:
        name: its name; the file's name if it was uploaded.
        text: one prompt per line, or lines of JSON.
        is_json: whether it is lines of JSON.
        is_file: whether it was uploaded; messages don't call a typed set a file.
    """

    name: str
    text: str
    is_json: bool = False
    is_file: bool = False

    @property
    def file_name(self) -> str:
        """A file name that is valid on any system."""
        stem = _NO_FOLDER.sub(" ", self.name).strip(" .")[:_MOST_NAME].strip(" .")
        return f"{stem or 'prompts'}.{'jsonl' if self.is_json else 'txt'}"


@dataclass(frozen=True)
class ContrastOrder:
    """An order of a contrast.

    Attributes:
        pair: a pair of the project; None if both sets are given.
        positive, negative: the sets; None for a pair.
        at: ``last`` or ``mean``.
        keep_outliers: whether tokens with outlier norms stay.
    """

    pair: str | None = None
    positive: Typed | None = None
    negative: Typed | None = None
    at: str = "last"
    keep_outliers: bool = False

    @property
    def id(self) -> str:
        """Identifies the order: 16 hexadecimal digits, equal for equal orders."""
        return _digest(asdict(self))

    @property
    def words(self) -> str:
        """The sets and the place where they are read, in words."""
        if self.positive is not None and self.negative is not None:
            sides = self.positive.name, self.negative.name
        else:
            pair = PAIRS[self.pair or DEFAULT_PAIR]
            sides = pair.positive_name, pair.negative_name
        outliers = "with" if self.keep_outliers else "without"
        return f"{sides[0]} against {sides[1]} at {_AT_WORDS[self.at]}, {outliers} outlier tokens"

    def to_record(self) -> dict[str, Any]:
        """The order as plain values for JSON."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> ContrastOrder:
        """Read the result of :meth:`to_record`."""
        sides = ("positive", "negative")
        sets = {side: None if record[side] is None else Typed(**record[side]) for side in sides}
        return cls(**(record | sets))


def sets_id(positive: Typed, negative: Typed) -> str:
    """The id of two sets in links: 16 hexadecimal digits."""
    return _digest([asdict(positive), asdict(negative)])


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode("utf-8")).hexdigest()[:16]


def problems_of(order: ContrastOrder) -> list[UserError]:
    """Why the sets can't be used with any model: one error per set; empty if they can."""
    first = _problem(order)
    if first is None:
        return []
    if first.setting != "positive" or order.positive is None:
        return [first]
    # The library stops at the first error: the second set is read together with a valid one.
    lines = "\n".join(f"{order.id} {k}" for k in range(FEWEST_PROMPTS))
    second = _problem(replace(order, positive=Typed(order.positive.name, lines)))
    return [first] if second is None else [first, second]


def _problem(order: ContrastOrder) -> UserError | None:
    try:
        with _as_settings(order) as settings:
            check_files(settings)
    except UserError as error:
        return error
    return None


def run_order(subject: Subject, order: ContrastOrder, progress: Progress) -> dict[str, Any]:
    """The report of a contrast, as ``report.json`` holds it.

    Raises:
        UserError: see :func:`projector.residual.contrast.report.contrast`.
    """
    # Imported here: it loads SciPy and scikit-learn, which no other page needs.
    from projector.residual.contrast.report import contrast

    with _as_settings(order) as settings:
        return contrast([subject], **vars(settings), progress=progress).as_dict()


@contextmanager
def _as_settings(order: ContrastOrder) -> Iterator[ContrastSettings]:
    """The order as settings of the library; sets are temporary files, which errors don't name."""
    if order.positive is None or order.negative is None:
        yield ContrastSettings(pair=order.pair, at=order.at, keep_outliers=order.keep_outliers)
        return
    with tempfile.TemporaryDirectory() as name:
        files: dict[str, tuple[Path, Typed]] = {}
        for side, typed in (("positive", order.positive), ("negative", order.negative)):
            path = Path(name) / side / typed.file_name
            path.parent.mkdir()
            path.write_text(typed.text, encoding="utf-8", errors="replace")
            files[side] = path, typed
        try:
            yield ContrastSettings(
                positive=files["positive"][0],
                negative=files["negative"][0],
                at=order.at,
                keep_outliers=order.keep_outliers,
            )
        except UserError as error:
            raise _as_page(error, files) from error


def _as_page(error: UserError, files: dict[str, tuple[Path, Typed]]) -> UserError:
    """The error with the page's name for a set, and without folders."""
    message = str(error.args[0])
    for side, (path, typed) in files.items():
        field, shown = named(side), f" '{path.name}'" if typed.is_file else ""
        comma = "" if typed.is_file else ","
        message = message.replace(f"{field} '{path}'", f"{field}{shown}")
        message = message.replace(f"'{path}' line ", f"{field}{shown}{comma} line ")
        message = message.replace(f"{path.parent}/", "")
    return UserError(message, setting=error.setting, expected=error.expected)
