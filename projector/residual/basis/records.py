"""Records of plain numbers: what a plane, a head, a skip connection and an activation look like.

Each record has ``as_dict()``, whose JSON the canvas script in ``projector/figures/basis/web`` and
the dashboard draw. All numbers are Python's own, every list is a list of rows, and nothing is NaN:
what can't be given is None, beside its reason.

====================  ==========================================================================
record                drawn as
====================  ==========================================================================
:class:`Share`        a number, or a bar, with its control's band beside it
:class:`PlaneView`    a plane before and after; the one record that ``mount(root, data)`` takes
:class:`Arrow`        a vector from the origin, in a plane
:class:`AttentionView`  the tokens' values and their mixtures, in ``plane``; the pattern as weights
:class:`SkipView`     three arrows in ``plane``: the stream, what is added, and their sum
:class:`ActivationView`  a grid of layers by tokens; ``plane`` shows two neurons
:class:`LayerActivations`  one row of that grid
====================  ==========================================================================

A plane's fields:

==================  ============================================================================
field               meaning
==================  ============================================================================
kind                "map", "toy" (a matrix to drag), "attention", "skip" or "neurons"
title               such as "layer 3 · W_O of head 2"
matrix              2 × 2, [[a, b], [c, d]]: (x, y) goes to (a x + b y, c x + d y)
space_before        what the plane before lies in, such as "residual stream"
space_after         what the plane after lies in
axes_before         names of the two axes before
axes_after          names of the two axes after
is_same_plane       whether both planes are one; then ``matrix`` shows turns and shears too
follows_matrix      whether each point after is ``matrix`` times the point before
singular_values     of the whole map, largest first, 16 at most
points_before       n rows [x, y], in units of ``point_unit``
points_after        n rows [x, y], in the same units
labels              n texts, one a point
point_unit          length of 1 on the axes of the points, in the model's own numbers
arrows              vectors with names (a skip connection has three); empty elsewhere
shares              what the plane keeps, each beside its control
orthant_before      share of points in the positive orthant before, None without points
orthant_after       the same after
notes               sentences that go with the picture
is_toy              whether the matrix can be dragged: it is no model's own
==================  ============================================================================

What makes them, in this room: ``maps.list_maps(subject, layer)`` and ``maps.read_map(subject,
layer, name, head)``; ``planes.read_points(subject, map, ids)``, ``planes.view_map(map, points,
labels, same_plane=)`` and ``planes.view_matrix(matrix, points)``;
``activations.view_activations(subject, ids, layer=, neurons=)``;
``attention.view_attention(subject, ids, layer, head)``; ``skip.view_skip(subject, ids, layer,
position, head=)``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

Pair = tuple[float, float]
Matrix2 = tuple[Pair, Pair]
IDENTITY: Matrix2 = ((1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True)
class Share:
    """A share, beside that of a control where there is nothing to find.

    Attributes:
        name: what it is, such as "squared length of the tokens inside the plane".
        value: in [0, 1], but for a ratio of two lengths, which may be above 1; None where
            ``reason`` says why.
        control: the control's mean; None where there is none.
        control_low, control_high: its 5th and 95th percentile; None where it is one number.
        control_name: such as "a random plane".
        n_draws: how many controls were drawn; 0 where their distribution is known exactly.
        reason: why ``value`` is None.
    """

    name: str
    value: float | None
    control: float | None
    control_low: float | None
    control_high: float | None
    control_name: str
    n_draws: int = 0
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Arrow:
    """A vector from the origin of a plane, with its name and its length in the model's space."""

    name: str
    x: float
    y: float
    length: float


@dataclass(frozen=True)
class PlaneView:
    """A plane before a map and a plane after it; the module's table lists the fields."""

    kind: str
    title: str
    matrix: Matrix2
    space_before: str
    space_after: str
    axes_before: tuple[str, str]
    axes_after: tuple[str, str]
    is_same_plane: bool
    follows_matrix: bool
    singular_values: tuple[float, ...]
    points_before: tuple[Pair, ...] = ()
    points_after: tuple[Pair, ...] = ()
    labels: tuple[str, ...] = ()
    point_unit: float = 1.0
    arrows: tuple[Arrow, ...] = ()
    shares: tuple[Share, ...] = ()
    orthant_before: Share | None = None
    orthant_after: Share | None = None
    notes: tuple[str, ...] = ()
    is_toy: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)


@dataclass(frozen=True)
class AttentionView:
    """A head on a prompt of T tokens: each row of A V is a combination of the rows of V.

    Attributes:
        tokens: T texts.
        pattern: A, T rows of T coefficients: how much the token of a row takes of each column.
        plane: points before are the tokens' values, points after what the head gives at each
            token, in the plane of the values' top two directions.
        shares: what mixing keeps of the values' spread and of their length, beside those of a
            shuffled pattern.
        closure_error: ‖A V − what the head gives‖ / ‖what the head gives‖ in this run.
    """

    layer: int
    head: int
    tokens: tuple[str, ...]
    pattern: tuple[tuple[float, ...], ...]
    plane: PlaneView
    shares: tuple[Share, ...]
    closure_error: float

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)


@dataclass(frozen=True)
class SkipView:
    """The skip connection at one token: the stream x, what attention adds, and their sum.

    Attributes:
        head: the head that alone is added; None for attention as a whole.
        tokens: T texts.
        position: which of them the vectors are of.
        plane: holds three arrows, which lie in it exactly.
        shares: how much of x lies in the head's output column space, beside a random subspace of
            the same dimension, and likewise of the sum.
        cosine: of x and what is added; None where one is zero.
        off_plane: largest share of a vector's length outside the plane: 0 but for rounding.
        closure_error: ‖x + all that attention adds − the model's own next stream‖ / ‖the stream‖;
            None where the model has no such stream, as where MLP and attention are added at once.
    """

    layer: int
    head: int | None
    tokens: tuple[str, ...]
    position: int
    plane: PlaneView
    shares: tuple[Share, ...]
    cosine: float | None
    off_plane: float
    closure_error: float | None

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)


@dataclass(frozen=True)
class LayerActivations:
    """What one layer's activation function keeps on a prompt of T tokens.

    Attributes:
        function: which one it is by its values, such as "ReLU" or "SiLU"; "unnamed" for another
            one, "unknown" where none was found.
        is_gated: whether its result multiplies a second input.
        active: T shares of neurons: with an input above 0 for a ReLU, with an output whose size is
            above ``threshold`` elsewhere; empty where ``reason`` says why.
        shuffled: T shares, of the same weights on the same input with its coordinates shuffled.
        positive: T shares of neurons whose input is above 0, whatever the function.
        positive_shuffled: the same of the shuffled input.
        threshold: a tenth of the layer's root mean square output, of the tokens behind a causal
            sequence's first; 0 for a ReLU.
        n_neurons: how many there are.
        reason: why nothing is known of the layer.
    """

    layer: int
    function: str
    is_gated: bool
    active: tuple[float, ...]
    shuffled: tuple[float, ...]
    positive: tuple[float, ...]
    positive_shuffled: tuple[float, ...]
    threshold: float
    n_neurons: int
    reason: str | None = None


@dataclass(frozen=True)
class ActivationView:
    """What the activation functions of a model keep on a prompt.

    Attributes:
        tokens: T texts.
        layers: each layer's row.
        curve: the function itself: rows [input, output] over −6 to 6 of the first layer that has
            one; empty where none was found.
        relu_distance: largest |f(x) − max(x, 0)| on the curve; None without a curve.
        sentence: what the function does, and whether the positive orthant is a picture of it.
        plane: two neurons of one layer: inputs before, activations after; None where the
            function was not found.
    """

    tokens: tuple[str, ...]
    layers: tuple[LayerActivations, ...]
    curve: tuple[Pair, ...]
    relu_distance: float | None
    sentence: str
    plane: PlaneView | None = field(default=None)

    def as_dict(self) -> dict[str, Any]:
        """What JSON holds."""
        return asdict(self)
