"""The ``PruningReport`` artifact: what every combination of a sweep costs in perplexity."""

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
# The windows that every row is scored on, and those that the winners are scored on again.
SAMPLE, ALL = "sample", "all"


@dataclass(frozen=True)
class Row:
    """One pruned model, scored on one text.

    Attributes:
        method, refit: ``dense`` and ``none`` for the dense model, the row of sparsity 0.
        sparsity: share of each layer's MLP neurons that was asked to go.
        seed: of the calibration draw and of everything random.
        evaluation: the text's source.
        windows: ``sample``, the fixed windows every row is scored on, or ``all`` of the text.
        perplexity, bits_per_byte: None where there is none, ``reason`` telling why.
        n_tokens: tokens scored.
        parameters: of the whole model, tied weights counted once.
        removed_share: share of all parameters that is gone.
        seconds: planning and refitting took, without calibration and scoring. Plans of one method
            and seed share work: the most sparse, made first, pays for it.
        status: ``ok`` or ``not_applicable``, where there is no model, and nothing to say of it.
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
        n_seeds: that were scored.
        n_broken: of them, those whose model has no finite perplexity. With any, the mean of the
            others would flatter: there is none.
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
        """Perplexity and its spread, in words."""
        if self.perplexity is None:
            return "broken"
        # Where all seeds choose the same neurons, nothing spreads.
        spread = f" ± {self.spread:.3f}" if self.spread else ""
        return f"{self.perplexity:.3f}{spread}"


@dataclass
class PruningReport:
    """All rows of a sweep, with the settings and the model they belong to."""

    settings: dict[str, Any]
    model: dict[str, Any]
    rows: list[Row] = field(default_factory=list)

    @property
    def evaluations(self) -> list[str]:
        """The texts that rows are scored on, as the settings name them."""
        return [str(text["source"]) for text in self.settings.get("evaluations", [])]

    @property
    def figure_names(self) -> list[str]:
        """The file of each text's figure beside the report."""
        return _figure_names(len(self.evaluations))

    def has(self, combination: tuple[str, str, float, int], windows: str = SAMPLE) -> bool:
        """Whether a combination has its rows already."""
        return any(r.combination == combination and r.windows == windows for r in self.rows)

    def summaries(self, windows: str = "sample") -> list[Summary]:
        """Over seeds, in the order of the rows; combinations that can't be are left out."""
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
        """The combination of least mean perplexity at each sparsity; ties go to the first."""
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
            UserError: if it is not a report, is damaged, or is of another format version.
        """
        values = load_report(folder, SWEEP)
        try:
            rows = [checked(Row(**row)) for row in values["rows"]]
            return cls(dict(values["settings"]), dict(values["model"]), rows)
        except (KeyError, TypeError, ValueError) as error:
            path = Path(folder) / JSON_FILE
            raise UserError(f"'{path}' is damaged: {error}") from error


def figure_names_at(folder: Path) -> list[str]:
    """The figures beside a folder's report, of whatever version, damaged or not.

    None where there is no report, or it does not say of which texts it is.
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
