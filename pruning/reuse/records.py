"""Results of an experiment on reuse: rows, comparisons, and whether reuse wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

DENSE, REUSE, REMOVAL = "dense", "reuse", "removal"
RANDOM_PARTNERS, EARLY_WRITE = "random-partners", "early-write"
MIXED, MIXED_RANDOM = "mixed", "mixed-random"
# Each method in a few words, for people.
METHODS_HELP = {
    DENSE: "the model as it is",
    MIXED: "reuse where it pays: each replaced neuron is removed or reused, whichever costs less",
    REUSE: "every replaced neuron takes its value from its best partner in an earlier layer",
    REMOVAL: "neurons are removed, chosen by the same rule as if they had no partner",
    MIXED_RANDOM: "the same neurons as mixed, with partners drawn at random",
    RANDOM_PARTNERS: "the same neurons as reuse, with partners drawn at random",
    EARLY_WRITE: "the partner writes for the neuron, in the partner's own layer",
}
# The methods that the experiment tests: neurons take values of other neurons.
CANDIDATES = (MIXED, REUSE)
# The methods that each method is compared with; None is the pruning method.
COMPARED: dict[str, tuple[str | None, ...]] = {
    MIXED: (REMOVAL, None, MIXED_RANDOM),
    REUSE: (REMOVAL, None, RANDOM_PARTNERS, EARLY_WRITE),
    EARLY_WRITE: (REMOVAL,),
}
# A difference of more standard errors than this counts as more than chance.
N_ERRORS = 2.0


@dataclass(frozen=True, order=True)
class RowKey:
    """Identifies a row; ``dense`` has a share of 0, and the first seed.

    Attributes:
        n_partners: neurons that one reused neuron is fitted to; 0 without reuse.
    """

    method: str
    share: float
    seed: int
    n_partners: int = 0


@dataclass(frozen=True)
class ReuseRow:
    """One model and its score on the evaluation text.

    Attributes:
        method: one of :data:`METHODS_HELP`, or a pruning method.
        share: requested share of the multiply-adds of all MLPs to save.
        perplexity: exp of the mean nats a token; None if there is none, with the reason.
        nll_windows: mean nats a token of each window, in the order of the windows.
        operations: multiply-adds of all MLPs a token, see
            :mod:`pruning.reuse.replacing.operations`.
        operations_dense: the same for the dense model.
        n_changed: number of reused or removed neurons in all layers.
        r2: median over reused neurons of the share of variance that partners explain, on the
            calibration text; share of the second moment if outputs can't have a bias; None without
            reuse.
        seconds: time to choose neurons, refit and build, without scoring; shared work is counted
            for each row.
        reason: why there is no perplexity.
        counted: multiply-adds a token of the MLPs' matrix products, as PyTorch counted them while
            this model ran; ``products``: the same by the formula.
        n_reused: neurons that take their values from partners; ``n_removed``: neurons removed
            without a partner. None in reports without these counts.
    """

    method: str
    share: float
    seed: int
    n_partners: int
    perplexity: float | None
    nll_windows: tuple[float, ...]
    operations: int | None
    operations_dense: int
    n_changed: int
    r2: float | None
    seconds: float
    reason: str | None = None
    counted: int | None = None
    products: int | None = None
    n_reused: int | None = None
    n_removed: int | None = None

    @property
    def key(self) -> RowKey:
        """The key of this row."""
        return RowKey(self.method, self.share, self.seed, self.n_partners)

    @property
    def saved(self) -> float | None:
        """The share of the MLPs' multiply-adds that the model actually saves."""
        if self.operations is None:
            return None
        return 1 - self.operations / self.operations_dense

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReuseRow:
        """The row that :meth:`as_dict` gave."""
        return cls(**{**values, "nll_windows": tuple(values["nll_windows"])})


@dataclass(frozen=True)
class Comparison:
    """A method compared with another at the same share.

    Attributes:
        method: one of :data:`COMPARED`; ``against``: the other method.
        n_partners: partners of a reused neuron, in both.
        difference: mean over windows and seeds of the method's nats a token minus the other's;
            negative if the method is better.
        standard_error: of ``difference``, see :mod:`pruning.reuse.comparing`; None with one window.
        wins: whether the method is better by more than :data:`N_ERRORS` standard errors.
        loses: whether the method is worse by as much.
    """

    method: str
    share: float
    against: str
    n_partners: int
    difference: float
    standard_error: float | None
    wins: bool
    loses: bool


@dataclass(frozen=True)
class ReuseReport:
    """The report of an experiment on reuse.

    Attributes:
        settings, model: facts of both, for JSON.
        rows: in the order of :func:`pruning.reuse.experiment.plan_rows`.
        flop_check: multiply-adds a token of the MLPs' matrix products in the rows, by method:
            ``counted`` while they ran, and by the ``formula``.
        notes: notes for readers.
        wins: whether, at some share, reuse or mixed is better than removal and than the pruning
            method, by more than :data:`N_ERRORS` standard errors of each paired difference.
    """

    settings: Mapping[str, Any]
    model: Mapping[str, Any]
    rows: Sequence[ReuseRow]
    comparisons: Sequence[Comparison]
    flop_check: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)
    wins: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "settings": dict(self.settings),
            "model": dict(self.model),
            "rows": [row.as_dict() for row in self.rows],
            "comparisons": [asdict(each) for each in self.comparisons],
            "flop_check": dict(self.flop_check),
            "notes": list(self.notes),
            "wins": self.wins,
        }
