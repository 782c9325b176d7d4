"""Records of plain numbers for planes, heads, skip connections and activations.

Each record has ``as_dict()``, whose JSON the canvas script in ``projector/figures/basis/web`` and
the dashboard draw. All numbers are plain Python numbers, every list is a list of rows, and there is
no NaN: a missing value is None, with a reason.

====================  ==========================================================================
record                drawn as
====================  ==========================================================================
:class:`Share`        a number, or a bar, with its control's band next to it
:class:`PlaneView`    a plane before and after; the one record that ``mount(root, data)`` takes
:class:`Arrow`        a vector from the origin, in a plane
:class:`AttentionView`  the tokens' values and their mixtures, in ``plane``; the pattern as weights
:class:`SkipView`     three arrows in ``plane``: the stream, the addition, and their sum
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
space_before        name of the space before, such as "residual stream"
space_after         name of the space after
axes_before         names of the two axes before
axes_after          names of the two axes after
is_same_plane       whether both planes are the same; ``matrix`` then shows rotations and shears
follows_matrix      whether each point after is ``matrix`` times the point before
singular_values     of the whole map, largest first, 16 at most
points_before       n rows [x, y], in units of ``point_unit``
points_after        n rows [x, y], in the same units
labels              n texts, one per point
point_unit          length of 1 on the axes of the points, in the model's own numbers
arrows              named vectors (a skip connection has three); otherwise empty
shares              shares that the plane keeps, each with its control
orthant_before      share of points in the positive orthant before, None without points
orthant_after       the same after
notes               sentences for the picture
is_toy              whether the matrix can be dragged, because it isn't a model's own
==================  ============================================================================

They are made by: ``maps.list_maps(subject, layer)`` and ``maps.read_map(subject,
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
    """A share with that of a control, where there is nothing to find.

    Attributes:
        name: a description such as "squared length of the tokens inside the plane".
        value: in [0, 1], except for a ratio of two lengths, which may be above 1; None if
            ``reason`` is set.
        control: the control's mean; None if there is no control.
        control_low, control_high: its 5th and 95th percentiles; None if it is a single number.
        control_name: such as "a random plane".
        n_draws: number of random draws of the control; 0 if its distribution is known exactly.
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
        """Convert to JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class AttentionView:
    """A head on a prompt of T tokens, where each row of A V is a combination of the rows of V.

    Attributes:
        tokens: T texts.
        pattern: A, T rows of T coefficients: how much the token of a row attends to each column.
        plane: points before are the tokens' values, points after are the head's outputs at each
            token, in the plane of the values' top two directions.
        shares: the shares of the values' variance and squared length that mixing keeps, compared
            with a shuffled pattern.
        closure_error: ‖A V − head output‖ / ‖head output‖ in this run.
    """

    layer: int
    head: int
    tokens: tuple[str, ...]
    pattern: tuple[tuple[float, ...], ...]
    plane: PlaneView
    shares: tuple[Share, ...]
    closure_error: float

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SkipView:
    """The skip connection at one token: the stream x, the attention's addition, and their sum.

    Attributes:
        head: the head to add; None for all of attention.
        tokens: T texts.
        position: position of the token of the vectors.
        plane: has three arrows, which lie in it exactly.
        shares: the share of x in the column space of the output matrix, compared with a random
            subspace of the same dimension; the same for the sum.
        cosine: cosine of x and the addition; None if one of them is zero.
        off_plane: largest share of a vector's length outside the plane; 0 up to rounding.
        closure_error: ‖x + attention's addition − the model's own next stream‖ / ‖the stream‖; None
            if the model has no such stream, for example if MLP and attention are added at once.
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
        """Convert to JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class LayerActivations:
    """Which activations one layer's activation function keeps on a prompt of T tokens.

    Attributes:
        function: its name, identified by its values, such as "ReLU" or "SiLU"; "unnamed" for
            another function, "unknown" if none was found.
        is_gated: whether its result multiplies a second input.
        active: T shares of active neurons: with an input above 0 for a ReLU, otherwise with an
            absolute output above ``threshold``; empty if ``reason`` is set.
        shuffled: T shares for the same weights on inputs with shuffled coordinates.
        positive: T shares of neurons with an input above 0, for any function.
        positive_shuffled: the same for the shuffled input.
        threshold: a tenth of the layer's root mean square output, over all tokens except a causal
            sequence's first; 0 for a ReLU.
        n_neurons: number of neurons.
        reason: why the layer has no values.
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
    """Which activations the activation functions of a model keep on a prompt.

    Attributes:
        tokens: T texts.
        layers: one row per layer.
        curve: the function as rows [input, output] from −6 to 6, for the first layer with a
            function; empty if none was found.
        relu_distance: largest |f(x) − max(x, 0)| on the curve; None without a curve.
        sentence: a description of the function, and whether the positive orthant represents it.
        plane: two neurons of one layer, inputs before, activations after; None if the function was
            not found.
    """

    tokens: tuple[str, ...]
    layers: tuple[LayerActivations, ...]
    curve: tuple[Pair, ...]
    relu_distance: float | None
    sentence: str
    plane: PlaneView | None = field(default=None)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)
