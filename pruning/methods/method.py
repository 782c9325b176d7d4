"""What a method is: a record that tells who goes, and what deciding it takes.

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

# What a method may read of a layer: its weights; means and squares of its neurons' activations; all
# second moments; the same, inverted, so that they must not be singular; poles and map of the
# model's projection.
READS = ("weights", "activations", "moments", "regular moments", "projection")


@dataclass(frozen=True)
class Proposals:
    """Who may stand in for whom, as a projection has it.

    Attributes:
        labels: pole of every neuron, (N,) int64, −1 for none.
        opposites: of every pole, the pole opposite to it, or None.
        positions: (N, d) float32 on the map, NaN for neurons that have none.
    """

    labels: Tensor
    opposites: tuple[int | None, ...]
    positions: Tensor


@dataclass
class Layer:
    """One layer as methods read it. All but eliminations is made when it is asked for.

    Attributes:
        index: which layer.
        mlp: its MLP; ``calibrated``: the moments of its neurons.
        centred: a bias will absorb what removed neurons give on average.
        seed: of everything random in the plan; the same for all layers.
        proposals: who may stand in for whom; None where no projection was given.
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
        """N, before anything goes."""
        return self.mlp.n_neurons

    @property
    def weights(self) -> MlpWeights:
        """On the CPU, where the moments are, and where there is float64."""
        return read_weights(self.mlp).to("cpu")

    @property
    def output(self) -> Tensor:
        """W, the output projection, (H, N) float64."""
        return self.weights.output.double().cpu()

    @property
    def moments(self) -> Moments:
        """Over all calibration tokens."""
        return self.calibrated.all

    @property
    def matrix(self) -> Tensor:
        """The covariance where ``centred``, else E[h hᵀ]; (N, N) float64."""
        moments = self.moments
        return moments.covariance if self.centred else moments.second

    def generator(self) -> torch.Generator:
        """Random numbers of this layer's own."""
        return torch.Generator().manual_seed(self.seed * 1009 + self.index)

    def elimination(self, n_removed: int) -> Elimination:
        """Who goes first when all others make up for it; removals are nested, so they are kept."""
        known = self._eliminated
        if known is None or len(known.order) < n_removed:
            known = eliminate(damped(self.matrix), self.output, n_removed)
            self._eliminated = known
        return known

    def rising_costs(self) -> Tensor:
        """What each removal of an elimination costs, (N,) float64; the last neuron stays.

        Made to rise, for removals come in order.
        """
        rising = self.elimination(self.n_neurons - 1).costs.cummax(dim=0).values
        return torch.cat([rising, rising.new_tensor([torch.inf])])


@dataclass(frozen=True)
class Method:
    """Who goes, by name. Exactly one of ``scores`` and ``plan`` is given.

    Attributes:
        name: as users write it.
        help: which neurons go, in a few words for people.
        source: the paper or papers; empty where it is this project's own.
        reads: what it reads of a layer, of :data:`READS`.
        scores: what each neuron is worth, (N,) float64; those of least score go.
        plan: what becomes of a layer of which so many neurons stay.
        costs: what each further removal costs, (N,) float64, rising; compared between layers as it
            is. None: the scores, standardized layer by layer; without scores the method can't tell
            how many of a layer should go.
        depends_on_seed: whether another seed makes another plan from the same text.
        hands_on: whether kept neurons stand in for removed ones.
        averages: whether neurons are averaged into the kept ones.
        matrices: of N × N in float64, how many deciding has at once; None: what reading takes.
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
        """Whether it reads the model's own projection."""
        return "projection" in self.reads

    @property
    def needs_regular_moments(self) -> bool:
        """Whether too few calibration tokens leave it nothing to invert."""
        return "regular moments" in self.reads

    @property
    def allocates(self) -> bool:
        """Whether it can tell how many neurons each layer should give (allocation ``global``)."""
        return self.scores is not None or self.costs is not None
