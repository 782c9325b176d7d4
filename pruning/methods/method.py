"""The record of a method: which neurons it removes, and the data that it needs to decide.

A method is one module of this room that makes a record, and one line of the registry. Commands,
plans, sweeps, checks, help and pages read the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from projector.model.architecture.records import Mlp
from projector.model.architecture.weights import MlpWeights, read_weights
from pruning.calibration.moments import LayerMoments, Moments
from pruning.methods.elimination import Elimination, damped, eliminate
from pruning.methods.plan import LayerPlan

# Data of a layer that a method may read: weights; means and squares of neurons' activations; all
# second moments; the same, inverted, so that they must not be singular; poles and map of the
# model's projection.
READS = ("weights", "activations", "moments", "regular moments", "projection")


@dataclass(frozen=True)
class Proposals:
    """Candidates for stand-ins from a projection.

    Attributes:
        labels: pole of every neuron, (N,) int64; −1 for neurons in no pole.
        opposites: for every pole, the pole opposite to it, or None.
        positions: (N, d) float32 on the map, NaN for neurons without a position.
    """

    labels: Tensor
    opposites: tuple[int | None, ...]
    positions: Tensor


@dataclass
class Layer:
    """One layer as methods read it. Everything but eliminations is computed on each access.

    Attributes:
        index: which layer.
        mlp: its MLP; ``calibrated``: the moments of its neurons.
        centred: whether a bias will absorb the mean output of removed neurons.
        seed: seed of everything random in the plan; the same for all layers.
        proposals: candidates for stand-ins; None if no projection was given.
    """

    index: int
    mlp: Mlp
    calibrated: LayerMoments
    centred: bool
    seed: int
    proposals: Proposals | None = None
    _eliminated: Elimination | None = field(default=None, repr=False)

    @property
    def n_neurons(self) -> int:
        """N, the number of neurons before pruning."""
        return self.mlp.n_neurons

    @property
    def weights(self) -> MlpWeights:
        """The weights on the CPU, which has float64 and holds the moments."""
        return read_weights(self.mlp).to("cpu")

    @property
    def output(self) -> Tensor:
        """W, the output projection, (H, N) float64."""
        return self.weights.output.double().cpu()

    @property
    def moments(self) -> Moments:
        """Moments over all calibration tokens."""
        return self.calibrated.all

    @property
    def matrix(self) -> Tensor:
        """The covariance if ``centred``, else E[h hᵀ]; (N, N) float64."""
        moments = self.moments
        return moments.covariance if self.centred else moments.second

    def generator(self) -> torch.Generator:
        """The layer's own random number generator."""
        return torch.Generator().manual_seed(self.seed * 1009 + self.index)

    def elimination(self, n_removed: int) -> Elimination:
        """The greedy order of removals with refitting.

        Smaller removals are prefixes of larger ones, so the longest is cached.
        """
        known = self._eliminated
        if known is None or len(known.order) < n_removed:
            known = eliminate(damped(self.matrix), self.output, n_removed)
            self._eliminated = known
        return known

    def rising_costs(self) -> Tensor:
        """The cost of each removal of an elimination, (N,) float64; the last neuron stays.

        Costs are made to rise, because removals come in order.
        """
        rising = self.elimination(self.n_neurons - 1).costs.cummax(dim=0).values
        return torch.cat([rising, rising.new_tensor([torch.inf])])


@dataclass(frozen=True)
class Method:
    """A way to choose the neurons to remove. Exactly one of ``scores`` and ``plan`` is given.

    Attributes:
        name: as users write it.
        help: which neurons are removed, in a few words for people.
        source: the paper or papers; empty for this project's own methods.
        reads: the data of a layer that it reads, from :data:`READS`.
        scores: a score for each neuron, (N,) float64; neurons with the lowest scores are removed.
        plan: makes the plan of a layer in which a given number of neurons stays.
        costs: the cost of each further removal, (N,) float64, rising; compared between layers
            without scaling. None: the scores, standardized layer by layer; a method without scores
            can't share removals out between layers.
        depends_on_seed: whether another seed gives another plan on the same text.
        hands_on: whether kept neurons stand in for removed ones.
        averages: whether neurons are averaged into the kept ones.
        matrices: number of N × N float64 matrices that it holds at once; None: as many as reading
            takes.
    """

    name: str
    help: str
    source: str = ""
    reads: tuple[str, ...] = ("weights",)
    scores: Callable[[Layer], Tensor] | None = None
    plan: Callable[[Layer, int], LayerPlan] | None = None
    costs: Callable[[Layer], Tensor] | None = None
    depends_on_seed: bool = False
    hands_on: bool = False
    averages: bool = False
    matrices: float | None = None

    def __post_init__(self) -> None:
        if (self.scores is None) == (self.plan is None):
            raise ValueError(f"method {self.name!r} needs either scores or a plan")
        unknown = set(self.reads) - set(READS)
        if unknown:
            raise ValueError(f"method {self.name!r} reads {sorted(unknown)}, not of {READS}")

    @property
    def needs_projection(self) -> bool:
        """Whether it reads the model's projection."""
        return "projection" in self.reads

    @property
    def needs_regular_moments(self) -> bool:
        """Whether it inverts moments, which too few calibration tokens leave singular."""
        return "regular moments" in self.reads

    @property
    def allocates(self) -> bool:
        """Whether it can share removals out between layers (allocation ``global``)."""
        return self.scores is not None or self.costs is not None
