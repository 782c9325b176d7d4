"""What an experiment on reuse finds: rows, what is compared of them, and whether reuse wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

DENSE, REUSE, REMOVAL = "dense", "reuse", "removal"
RANDOM_PARTNERS, EARLY_WRITE = "random-partners", "early-write"
MIXED, MIXED_RANDOM = "mixed", "mixed-random"
# What each method does, in a few words for people.
METHODS_HELP = {
    DENSE: "the model as it is",
    MIXED: "reuse where it pays: each neuron that goes is removed or reused, whichever costs less",
    REUSE: "every neuron that goes takes its value from its best partner of an earlier layer",
    REMOVAL: "neurons go, chosen by the same rule as if they had no partner",
    MIXED_RANDOM: "the same neurons as mixed, with partners drawn at random",
    RANDOM_PARTNERS: "the same neurons as reuse, with partners drawn at random",
    EARLY_WRITE: "the partner itself writes for the neuron, in the partner's layer",
}
# Methods in which neurons take values of others, and which the experiment is about.
CANDIDATES = (MIXED, REUSE)
# What each method is compared with; None stands for the best method of the pruning chapter.
COMPARED: dict[str, tuple[str | None, ...]] = {
    MIXED: (REMOVAL, None, MIXED_RANDOM),
    REUSE: (REMOVAL, None, RANDOM_PARTNERS, EARLY_WRITE),
    EARLY_WRITE: (REMOVAL,),
}
# So many standard errors are taken for more than chance.
N_ERRORS = 2.0


@dataclass(frozen=True, order=True)
class RowKey:
    """Which row: ``dense`` has a share of 0, and the first seed.

    Attributes:
        n_partners: neurons that one reused neuron is fitted to; 0 where none is reused.
    """

    method: str
    share: float
    seed: int
    n_partners: int = 0


@dataclass(frozen=True)
class ReuseRow:
    """One model, and what it makes of the evaluation text.

    Attributes:
        method: one of :data:`METHODS_HELP`, or a method of the pruning chapter.
        share: of the multiply-adds of all MLPs, that were to be saved.
        perplexity: exp of the mean nats a token; None where there is none, with the reason.
        nll_windows: mean nats a token of each window, in the order of the windows.
        operations: multiply-adds of all MLPs a token, see
            :mod:`pruning.reuse.replacing.operations`.
        operations_dense: the same of the model as it is.
        n_changed: neurons reused or removed, of all layers.
        r2: median over reused neurons of the share of a neuron's variance, over the calibration
            text, that its partners explain, or of its second moment where no output can have a
            bias; None where none is reused.
        seconds: what it took to choose neurons, refit and build; what rows share is counted for
            each. Scoring is not in it.
        reason: why there is no perplexity.
        counted: multiply-adds a token of the MLPs' matrix products, as PyTorch counted them in this
            very model while it ran; ``products``: the same by the formula.
        n_reused: neurons that take their values from partners; ``n_removed``: those that go without
            one. None in reports that do not tell.
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
        """Which row it is."""
        return RowKey(self.method, self.share, self.seed, self.n_partners)

    @property
    def saved(self) -> float | None:
        """The share of the MLPs' multiply-adds that is really saved."""
        if self.operations is None:
            return None
        return 1 - self.operations / self.operations_dense

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ReuseRow:
        """What :meth:`as_dict` gave."""
        return cls(**{**values, "nll_windows": tuple(values["nll_windows"])})


@dataclass(frozen=True)
class Comparison:
    """A method beside another one, at the same share.

    Attributes:
        method: one of :data:`COMPARED`; ``against``: the other.
        n_partners: of a neuron that is reused, in both.
        difference: mean over windows and seeds of the nats a token of the method less the other's:
            negative where the method is better.
        standard_error: of it, see :mod:`pruning.reuse.comparing`; None with one window.
        wins: whether the method is better by more than :data:`N_ERRORS` standard errors.
        loses: whether it is worse by as much.
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
    """An experiment on reuse.

    Attributes:
        settings, model: facts of both, for JSON.
        rows: in the order of :func:`pruning.reuse.experiment.plan_rows`.
        flop_check: multiply-adds a token of the MLPs' matrix products: of the rows, by method,
            ``counted`` while they ran, and by the ``formula``.
        notes: what a reader should know.
        wins: whether, at some share, reuse or mixed is better than removal and than the best of the
            pruning chapter, by more than :data:`N_ERRORS` standard errors of each paired
            difference.
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
