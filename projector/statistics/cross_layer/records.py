"""Facts about neurons that correlate across layers, with both controls; no tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from projector.storage.entries import Entry, Wrong

# The files of a projection: what reads and writes them is in `projector/projection/partners/`.
PARTNERS_FILE, PARTNERS_TENSORS = "partners.json", "partners.safetensors"
FORMAT, FORMAT_VERSION = "transformer-projection-partners", 2
# Whose neurons have partners.
SITE = "mlp_post"
# Partners that are kept of every neuron, among earlier layers and among later ones.
N_PARTNERS = 8
# Neurons of the later layer whose tokens are shuffled, evenly drawn.
N_SHUFFLED = 128
# Of the draws: rotations and shuffled tokens.
SEED = 0
# What the share above a control's 95th percentile is where there is nothing to find.
SHARE_BY_CHANCE = 0.05
# Of one layer, the types of its tensors as the format calls them; all are (N, N_PARTNERS).
LAYER_TENSORS = {
    f"{side}_{what}": kind
    for side in ("earlier", "later")
    for what, kind in (("rho", "F32"), ("layer", "I32"), ("neuron", "I32"))
}
# Of one layer, what files of format version 1 lack: the control of each neuron, (N,).
CONTROL_TENSORS = {f"{side}_rotated": "F32" for side in ("earlier", "later")}


@dataclass(frozen=True)
class Level:
    """The distribution of each neuron's best |ρ|.

    Attributes:
        median, percentile_95: the median and the 95th percentile over neurons.
    """

    median: float
    percentile_95: float


@dataclass(frozen=True)
class Control(Level):
    """The distribution of the best |ρ| in a control, where there is nothing to find.

    Attributes:
        share_above: share of the neurons with a best |ρ| above the control's 95th percentile; 0.05
            if there is nothing to find.
    """

    share_above: float


@dataclass(frozen=True)
class LayerPair:
    """How well single neurons of an earlier layer match the neurons of a later layer.

    Attributes:
        earlier, later: the layers.
        best: the best |ρ| of each neuron of the later layer among the earlier layer's neurons; None
            if no neuron of one of the layers has a correlation.
        rotated: the same among as many random orthonormal axes of the earlier layer's standardised
            activations.
        shuffled: the same with shuffled tokens in the later layer, for up to ``n_shuffled``
            neurons.
        reason: why there are no figures.
        n_distinct: number of neurons of the earlier layer that are the best partner of a neuron
            above the rotated control's 95th percentile; None in files of format version 1.
    """

    earlier: int
    later: int
    best: Level | None = None
    rotated: Control | None = None
    shuffled: Control | None = None
    reason: str | None = None
    n_distinct: int | None = None

    @classmethod
    def from_entry(cls, entry: Entry) -> LayerPair:
        """Read from JSON; raises ``Wrong`` if a figure is missing or not a number."""
        levels: dict[str, Any] = {}
        for name in ("best", "rotated", "shuffled"):
            found = entry.maybe_entry(name)
            if found is None:
                if entry.maybe_text("reason") is None:
                    raise Wrong(f"{entry.name}.{name} is missing")
                continue
            numbers = {each: _number(found, each) for each in ("median", "percentile_95")}
            if name == "best":
                levels[name] = Level(**numbers)
            else:
                levels[name] = Control(**numbers, share_above=_number(found, "share_above"))
        return cls(
            entry.count("earlier"),
            entry.count("later"),
            **levels,
            reason=entry.maybe_text("reason"),
            n_distinct=entry.maybe_count("n_distinct"),
        )


@dataclass(frozen=True)
class CrossLayerFacts:
    """How partners across layers were found, and how strong they are.

    Attributes:
        n_tokens: number of tokens in the correlations.
        n_left_out: number of tokens left out because every neuron of some layer was NaN or
            infinite.
        n_sequences: number of sequences with these tokens.
        tokens_sha256: hash of the tokens and the starts of sequences.
        n_partners: k, the number of partners kept for each neuron on either side.
        n_shuffled: largest number of neurons per layer with shuffled tokens.
        seed: seed of rotations and shuffled tokens.
        n_undefined: layer → number of neurons without a correlation: dead or non-finite over these
            tokens.
        pairs: all pairs of layers, the earlier layer first.
        versions: package → version used.
        has_controls: whether each neuron's own control is stored; False for files of format version
            1.
    """

    n_tokens: int
    n_left_out: int
    n_sequences: int
    tokens_sha256: str
    n_partners: int = N_PARTNERS
    n_shuffled: int = N_SHUFFLED
    seed: int = SEED
    n_undefined: Mapping[int, int] = field(default_factory=dict)
    pairs: tuple[LayerPair, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    has_controls: bool = True

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers with partners."""
        return tuple(self.n_undefined)

    def pair(self, earlier: int, later: int) -> LayerPair:
        """The figures of a pair of layers.

        Raises:
            KeyError: if the pair doesn't exist.
        """
        for each in self.pairs:
            if (each.earlier, each.later) == (earlier, later):
                return each
        raise KeyError((earlier, later))

    def strongest(self, n: int) -> list[LayerPair]:
        """The n pairs of layers with the largest median of the best |ρ|."""
        known = [(-pair.best.median, i) for i, pair in enumerate(self.pairs) if pair.best]
        return [self.pairs[i] for _, i in sorted(known)[:n]]

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        found = asdict(self)
        found["n_undefined"] = {str(layer): n for layer, n in self.n_undefined.items()}
        return found

    @classmethod
    def from_entry(cls, entry: Entry) -> CrossLayerFacts:
        """Read from JSON; raises ``Wrong`` if an entry is missing or invalid."""
        undefined = entry.entry("n_undefined")
        if not all(name.isdecimal() for name in undefined):
            raise Wrong("n_undefined has a key that isn't a layer")
        pairs = entry.value.get("pairs")
        if not isinstance(pairs, list):
            raise Wrong("pairs isn't a list")
        counts = ("n_tokens", "n_left_out", "n_sequences", "n_partners", "n_shuffled", "seed")
        layers = sorted(int(name) for name in undefined)
        found = cls(
            **{name: entry.count(name) for name in counts},
            tokens_sha256=entry.text("tokens_sha256"),
            n_undefined={layer: undefined.count(str(layer)) for layer in layers},
            pairs=tuple(LayerPair.from_entry(Entry(each, "pairs")) for each in pairs),
            versions=entry.texts_by_name("versions"),
            has_controls=entry.truth("has_controls"),
        )
        if [(pair.earlier, pair.later) for pair in found.pairs] != layer_pairs(layers):
            raise Wrong("pairs doesn't hold every pair of layers once, in order")
        return found


def layer_pairs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """All pairs of layers in order, the earlier layer first."""
    return [(i, j) for n, i in enumerate(layers) for j in layers[n + 1 :]]


def _number(entry: Entry, name: str) -> float:
    number = entry.maybe_number(name)
    if number is None:
        raise Wrong(f"{entry.name}.{name} is missing")
    return number
