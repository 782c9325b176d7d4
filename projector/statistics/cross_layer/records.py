"""What is known of neurons that correlate across layers, beside both controls. No tensors."""

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
    """How each neuron's best |ρ| is distributed.

    Attributes:
        median, percentile_95: over neurons.
    """

    median: float
    percentile_95: float


@dataclass(frozen=True)
class Control(Level):
    """The same where there is nothing to find.

    Attributes:
        share_above: of the neurons themselves, those whose best |ρ| is above the control's 95th
            percentile: 0.05 where there is nothing to find.
    """

    share_above: float


@dataclass(frozen=True)
class LayerPair:
    """How well the neurons of one layer are matched by single neurons of an earlier one.

    Attributes:
        earlier, later: the layers.
        best: of each neuron of the later layer, the best |ρ| among the earlier layer's; None where
            no neuron of one of them has a correlation.
        rotated: the same among as many random orthonormal axes of the earlier layer's standardised
            activations.
        shuffled: the same, the tokens of the later layer's neurons shuffled; of up to
            ``n_shuffled`` neurons.
        reason: why there are no figures.
        n_distinct: how many neurons of the earlier layer are the best partner of a neuron that is
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
        """Raises ``Wrong`` where a figure is missing or not a number."""
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
    """What partners across layers were found by, and how strong they are.

    Attributes:
        n_tokens: tokens that correlations are over.
        n_left_out: tokens left out since every neuron of some layer was NaN or infinite there.
        n_sequences: sequences that these tokens are of.
        tokens_sha256: hash over the tokens, and where sequences start.
        n_partners: k, partners kept of every neuron on either side.
        n_shuffled: most neurons of a layer whose tokens were shuffled.
        seed: of rotations and shuffled tokens.
        n_undefined: layer → neurons without a correlation: dead or non-finite over these tokens.
        pairs: every two layers, the earlier one first.
        versions: package → version that found them.
        has_controls: whether each neuron's own control is kept: not in files of format version 1.
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
        """Layers whose neurons have partners."""
        return tuple(self.n_undefined)

    def pair(self, earlier: int, later: int) -> LayerPair:
        """The figures of two layers.

        Raises:
            KeyError: if there are none of them.
        """
        for each in self.pairs:
            if (each.earlier, each.later) == (earlier, later):
                return each
        raise KeyError((earlier, later))

    def strongest(self, n: int) -> list[LayerPair]:
        """The n pairs in which the median neuron's best partner is strongest."""
        known = [(-pair.best.median, i) for i, pair in enumerate(self.pairs) if pair.best]
        return [self.pairs[i] for _, i in sorted(known)[:n]]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = asdict(self)
        found["n_undefined"] = {str(layer): n for layer, n in self.n_undefined.items()}
        return found

    @classmethod
    def from_entry(cls, entry: Entry) -> CrossLayerFacts:
        """Raises ``Wrong`` where something is missing or not what it should be."""
        undefined = entry.entry("n_undefined")
        if not all(name.isdecimal() for name in undefined):
            raise Wrong("n_undefined names something that is not a layer")
        pairs = entry.value.get("pairs")
        if not isinstance(pairs, list):
            raise Wrong("pairs is not a list")
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
            raise Wrong("pairs does not hold every two layers once, in order")
        return found


def layer_pairs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Every two layers, the earlier one first, in order."""
    return [(i, j) for n, i in enumerate(layers) for j in layers[n + 1 :]]


def _number(entry: Entry, name: str) -> float:
    number = entry.maybe_number(name)
    if number is None:
        raise Wrong(f"{entry.name}.{name} is missing")
    return number
