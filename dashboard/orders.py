"""A page's order of a sweep: check it, and turn it into a command.

A file keeps the order, never the command: a resumed sweep starts from the order, which is checked
again.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from dashboard.roots import find_folders
from projector.corpus.sources import sources_hint
from projector.errors import UserError
from projector.projection.overview import FACTS_FILE
from pruning.sweep.settings import SweepSettings
from pruning.sweep.tasks import tasks_of

# A small sweep: a large one is for the command line.
MOST_SEEDS = 10
LEAST_SEQUENCES, MOST_SEQUENCES = 5, 100_000


class Grounds(Protocol):
    """Folders that a job may read and write, and its device; the app's settings are one."""

    @property
    def roots(self) -> tuple[Path, ...]: ...

    @property
    def device(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    def text_source(self, source: str) -> str:
        """See :func:`dashboard.roots.text_source`."""
        ...

    def check_model(self, model: str) -> None:
        """Raise a UserError unless the model may be loaded."""
        ...


@dataclass(frozen=True)
class Order:
    """The order of a sweep, as typed.

    Attributes:
        name: name of the report, which is its folder below the first root.
        projection: its name below the roots; ``model``: the model to load for it.
        sparsities: such as ``0.1, 30%``.
        n_sequences: calibration sequences per seed.
        evaluation: one text, or several separated by commas.
    """

    name: str
    projection: str
    model: str
    methods: tuple[str, ...]
    refits: tuple[str, ...]
    sparsities: str
    n_seeds: int
    n_sequences: int
    calibration: str
    evaluation: str

    def settings(self) -> SweepSettings:
        """The sweep's settings.

        Raises:
            UserError: if the order is invalid.
        """
        for kind, chosen in (("method", self.methods), ("refit", self.refits)):
            if not chosen:
                raise UserError(
                    f"no {kind} is chosen: choose one or more", setting=f"{kind}s", value=chosen
                )
        parts = [part.strip() for part in self.sparsities.split(",") if part.strip()]
        of: dict[str, Any] = {"setting": "sparsities", "value": self.sparsities[:80]}
        try:
            shares = tuple(
                float(part.removesuffix("%")) / (100 if part.endswith("%") else 1) for part in parts
            )
        except ValueError as error:
            raise UserError(
                f"the shares '{self.sparsities[:80]}' can't be read: write for example 0.1, 0.3",
                **of,
            ) from error
        if not shares:
            raise UserError("no share to remove is given: write for example 0.1, 0.3", **of)
        if not any(shares):
            raise UserError("a share of 0 removes nothing: give one above 0", **of)
        if len(set(shares)) < len(shares):
            raise UserError(
                f"the shares '{self.sparsities[:80]}' repeat a value: give each once", **of
            )
        if self.n_seeds > MOST_SEEDS:
            raise UserError(
                f"{self.n_seeds} seeds are too many: give {MOST_SEEDS} or fewer",
                setting="n_seeds",
                value=self.n_seeds,
            )
        return SweepSettings(self.methods, shares, self.refits, self.n_seeds, self.n_sequences)

    @property
    def n_models(self) -> int:
        """The number of models to score, including the dense model.

        Raises:
            UserError: see :meth:`settings`.
        """
        return sum(len(task.refits) for task in tasks_of(self.settings()))


def order_of(name: str, values: Any) -> Order | None:
    """Read an order from a file, if it is complete and valid for the page."""
    if not isinstance(values, dict) or values.get("name") != name:
        return None
    try:
        for field in fields(Order):
            value = values[field.name]
            if field.type == "tuple[str, ...]":
                is_right = isinstance(value, list) and all(isinstance(each, str) for each in value)
            else:
                is_right = type(value).__name__ == field.type
            if not is_right:
                return None
        order = Order(**values)
        order = replace(order, methods=tuple(order.methods), refits=tuple(order.refits))
        order.settings()
    except (KeyError, TypeError, UserError):
        return None
    return order


def command_of(settings: Grounds, order: Order, *, resume: bool) -> list[str]:
    """The arguments of ``pruning`` for an order.

    Raises:
        UserError: for orders that the command would refuse.
    """
    sweep = order.settings()
    root = settings.roots[0]
    out = root / order.name
    if not out.resolve().is_relative_to(root):
        raise UserError(
            f"folder '{order.name}' leads out of {root.name}: give another name",
            setting="name",
            value=order.name,
        )
    projection = find_folders(settings.roots, FACTS_FILE).get(order.projection)
    if projection is None:
        raise UserError(
            f"there is no projection '{order.projection[:80]}' here: choose another",
            setting="projection",
            value=order.projection[:80],
        )
    settings.check_model(order.model)
    # There may be several evaluation texts; each must lie below a root.
    texts = []
    for kind, text in (("calibration", order.calibration), ("evaluation", order.evaluation)):
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts:
            raise UserError(
                f"no {kind} text is given: write {sources_hint()}; files must lie below "
                f"{root.name}",
                setting=kind,
                value=text[:80],
            )
        texts.append([settings.text_source(part) for part in parts])
    if len(texts[0]) > 1:
        raise UserError(
            f"'{order.calibration[:80]}' names several texts: calibrate on one",
            setting="calibration",
            value=order.calibration[:80],
        )
    if texts[0][0] in texts[1]:
        raise UserError(
            f"calibration and evaluation are the same text, '{order.calibration[:80]}': give two",
            setting="calibration",
            value=order.calibration[:80],
        )
    return [
        "sweep",
        "--projection", str(projection),
        "--methods", ",".join(sweep.methods),
        "--refits", ",".join(sweep.refits),
        "--sparsities", ",".join(map(str, sweep.sparsities)),
        "--seeds", str(sweep.n_seeds),
        "--sequences", str(sweep.n_sequences),
        "--calibration", texts[0][0],
        "--evaluation", ",".join(texts[1]),
        "--device", settings.device,
        "--dtype", settings.dtype,
        "--out", str(out),
        # A small sweep: scoring all windows would take longer than the rest of it.
        "--no-winners",
        "--json",
        *(["--resume"] if resume else []),
        # A model's name comes from a projection, and must not be read as an option.
        "--", order.model,
    ]  # fmt: skip
