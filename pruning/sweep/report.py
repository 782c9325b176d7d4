"""The ``PruningReport`` artifact: the perplexity of every combination of a sweep."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from projector.errors import UserError
from pruning.reporting.files import JSON_FILE, checked, load_report, read_report, save_report
from pruning.reporting.kinds import SWEEP

DENSE = "dense"
OK, NOT_APPLICABLE = "ok", "not_applicable"
# The windows that every row is scored on, and those that winners are scored on again.
SAMPLE, ALL = "sample", "all"


@dataclass(frozen=True)
class Row:
    """One pruned model, scored on one text.

    Attributes:
        method, refit: ``dense`` and ``none`` for the dense model, in the row with sparsity 0.
        sparsity: requested share of each layer's MLP neurons to remove.
        seed: seed of the calibration draw and of everything random.
        evaluation: the text's source.
        windows: ``sample``, the fixed windows every row is scored on, or ``all`` of the text.
        perplexity, bits_per_byte: None if there is none; ``reason`` gives the cause.
        n_tokens: number of scored tokens.
        parameters: number of parameters of the whole model, tied weights counted once.
        removed_share: share of all parameters that were removed.
        seconds: time of planning and refitting, without calibration and scoring. Plans of one
            method and seed share work, which counts for the highest sparsity, made first.
        status: ``ok``, or ``not_applicable`` if there is no model and so no figures.
    """

    method: str
    refit: str
    sparsity: float
    seed: int
    evaluation: str
    windows: str
    perplexity: float | None
    bits_per_byte: float | None
    n_tokens: int
    parameters: int | None
    removed_share: float | None
    seconds: float | None
    status: str = OK
    reason: str = ""

    @property
    def combination(self) -> tuple[str, str, float, int]:
        """Method, refit, sparsity and seed."""
        return self.method, self.refit, self.sparsity, self.seed


@dataclass(frozen=True)
class Summary:
    """A method and refit at one sparsity: mean and sample standard deviation over seeds.

    Attributes:
        n_seeds: number of scored seeds.
        n_broken: how many of them have no finite perplexity. If there are any, there is no mean,
            because the mean of the rest would be too good.
        spread: None for one seed.
    """

    method: str
    refit: str
    sparsity: float
    evaluation: str
    windows: str
    n_seeds: int
    n_broken: int
    perplexity: float | None
    spread: float | None
    removed_share: float
    seconds: float

    @property
    def text(self) -> str:
        """Perplexity and its spread, as text."""
        if self.perplexity is None:
            return "broken"
        # If all seeds choose the same neurons, there is no spread.
        spread = f" ± {self.spread:.3f}" if self.spread else ""
        return f"{self.perplexity:.3f}{spread}"


@dataclass
class PruningReport:
    """All rows of a sweep, with its settings and its model."""

    settings: dict[str, Any]
    model: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    @property
    def evaluations(self) -> list[str]:
        """The evaluation texts, as the settings name them."""
        return [str(text["source"]) for text in self.settings.get("evaluations", [])]

    @property
    def figure_names(self) -> list[str]:
        """The file of each text's figure in the report's folder."""
        return _figure_names(len(self.evaluations))

    def has(self, combination: tuple[str, str, float, int], windows: str = SAMPLE) -> bool:
        """Whether a combination has its rows already."""
        return any(r.combination == combination and r.windows == windows for r in self.rows)

    def summaries(self, windows: str = "sample") -> list[Summary]:
        """Summaries over seeds, in the order of the rows, without impossible combinations."""
        groups: dict[tuple[str, str, float, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.windows == windows and row.status == OK:
                groups[row.method, row.refit, row.sparsity, row.evaluation].append(row)
        result = []
        for (method, refit, sparsity, evaluation), rows in groups.items():
            values = [row.perplexity for row in rows if row.perplexity is not None]
            n_broken = len(rows) - len(values)
            result.append(
                Summary(
                    method,
                    refit,
                    sparsity,
                    evaluation,
                    windows,
                    len(rows),
                    n_broken,
                    None if n_broken else statistics.fmean(values),
                    None if n_broken or len(values) < 2 else statistics.stdev(values),
                    rows[0].removed_share or 0.0,
                    statistics.fmean(row.seconds or 0.0 for row in rows),
                )
            )
        return result

    def winners(self, evaluation: str) -> list[Summary]:
        """The combination with the lowest mean perplexity at each sparsity; the first if tied."""
        found = [
            each
            for each in self.summaries()
            if each.evaluation == evaluation
            and each.method != DENSE
            and each.perplexity is not None
        ]
        sparsities = sorted({each.sparsity for each in found})
        return [
            min((each for each in found if each.sparsity == sparsity), key=_perplexity)
            for sparsity in sparsities
        ]

    def save(self, folder: Path) -> None:
        """Write ``report.json`` and ``report.csv``, each replaced in one step."""
        rows = [asdict(row) for row in self.rows]
        content = {"settings": self.settings, "model": self.model, "rows": rows}
        save_report(folder, SWEEP, content, [f.name for f in fields(Row)], rows)

    @classmethod
    def load(cls, folder: str | Path) -> PruningReport:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: if it isn't a report, is damaged, or has another format version.
        """
        values = load_report(folder, SWEEP)
        try:
            rows = [checked(Row(**row)) for row in values["rows"]]
            return cls(dict(values["settings"]), dict(values["model"]), rows)
        except (KeyError, TypeError, ValueError) as error:
            path = Path(folder) / JSON_FILE
            raise UserError(f"'{path}' is damaged: {error}") from error


def figure_names_at(folder: Path) -> list[str]:
    """The figures of a folder's report, of any version, even if it is damaged.

    None if there is no report, or it doesn't name its texts.
    """
    try:
        values = read_report(folder / JSON_FILE, SWEEP)
        return _figure_names(len(values["settings"]["evaluations"]))
    except (UserError, KeyError, TypeError):
        return []


def _figure_names(n_evaluations: int) -> list[str]:
    if n_evaluations == 1:
        return ["report.html"]
    return [f"report-{i}.html" for i in range(n_evaluations)]


def _perplexity(summary: Summary) -> float:
    assert summary.perplexity is not None
    return summary.perplexity
