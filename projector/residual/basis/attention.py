"""Attention as a change of basis: each row of A V is a combination of the tokens' values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from projector.errors import UserError
from projector.model.architecture.stream.attention import HeadWeights
from projector.model.architecture.stream.patterns import watch_patterns
from projector.model.capture import Tap, capture
from projector.residual.basis.controls import (
    N_DRAWS,
    beside,
    random_matrix_share,
    share_in,
    share_in_plane,
)
from projector.residual.basis.maps import check_head, check_layer
from projector.residual.basis.planes import place_points, token_texts
from projector.residual.basis.records import IDENTITY, AttentionView, PlaneView, Share
from projector.residual.subject import Subject

_MOST_ERROR, _MOST_ERROR_IN_SHORT_TYPES = 1e-4, 3e-2
# Values that differ by a smaller share of their length differ by rounding.
_ALIKE = 1e-6
_SHUFFLED = "the same rows with shuffled coefficients"


@torch.no_grad()
def view_attention(
    subject: Subject,
    ids: Sequence[int],
    layer: int,
    head: int,
    *,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> AttentionView:
    """Show a head's values and their mixtures on a prompt in one plane, with one forward pass.

    The pattern, the values and the input of the output projection come from the same run, and A V
    is checked to equal the head's output.

    Raises:
        SettingError: on ``layer`` or ``head``.
        UserError: if the layer's heads can't be separated, it has no pattern, or A V differs from
            the head's output.
    """
    check_layer(subject, layer)
    weights = subject.attentions[layer]
    if isinstance(weights, str):
        raise UserError(f"the heads of layer {layer} can't be found: {weights}")
    check_head(layer, head, weights.n_heads)
    pattern, values, given = _run(subject, ids, weights, head)
    mixed = pattern @ values
    size = float(given.norm())
    error = float((mixed - given).norm()) / size if size else float(mixed.norm())
    is_wide = subject.model.dtype in (torch.float32, torch.float64)
    if not error <= (_MOST_ERROR if is_wide else _MOST_ERROR_IN_SHORT_TYPES):
        raise UserError(
            f"pattern times values of layer {layer}, head {head} differs from the head's output "
            f"by {error:.1e} of it, so its rows aren't combinations of the values"
        )
    return describe_mixing(
        layer,
        head,
        token_texts(subject, ids),
        pattern,
        values,
        closure_error=error,
        n_draws=n_draws,
        seed=seed,
    )


def describe_mixing(
    layer: int,
    head: int,
    tokens: tuple[str, ...],
    pattern: Tensor,
    values: Tensor,
    *,
    closure_error: float = 0.0,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> AttentionView:
    """Describe a pattern A (T, T) and values V (T, d) as a view.

    The plane is that of V's top two singular directions. In it, points after are A times the points
    before, because projecting and mixing commute. The axes are unchanged, so ``matrix`` is the
    identity. The control shuffles each row's coefficients: in a causal pattern among the tokens up
    to the row's own, otherwise among all.
    """
    pattern, values = pattern.double(), values.double()
    mixed = pattern @ values
    axes = _plane_of(values)
    shuffled = _shuffle(pattern, n_draws, torch.Generator().manual_seed(seed)) @ values
    drawn = place_points(values @ axes, mixed @ axes, ())
    spectrum = torch.linalg.svdvals(values)[:16]
    plane = PlaneView(
        kind="attention",
        title=f"layer {layer} · head {head}",
        matrix=IDENTITY,
        space_before="values of the head",
        space_after="values of the head, mixed by its pattern",
        axes_before=("direction 1", "direction 2"),
        axes_after=("direction 1", "direction 2"),
        is_same_plane=True,
        follows_matrix=False,
        singular_values=tuple(spectrum.tolist()),
        points_before=drawn.before,
        points_after=drawn.after,
        labels=tokens,
        point_unit=drawn.unit,
        shares=(
            share_in_plane(
                "squared length of the values in the plane",
                values,
                axes,
                n_draws=n_draws,
                seed=seed,
            ),
            _beside_random(values, axes),
            _beside_shuffled(
                "squared length of the mixtures in the plane",
                share_in(mixed, axes),
                (shuffled @ axes).square().sum((1, 2)) / shuffled.square().sum((1, 2)),
            ),
        ),
        orthant_before=drawn.orthant_before,
        orthant_after=drawn.orthant_after,
        notes=(
            "Each point after is a combination of the points before. The coefficients are a row "
            "of the pattern.",
        ),
    )
    return AttentionView(
        layer,
        head,
        tokens,
        tuple(tuple(row) for row in pattern.tolist()),
        plane,
        _kept(values, mixed, shuffled),
        closure_error,
    )


def _run(
    subject: Subject, ids: Sequence[int], weights: HeadWeights, head: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Pattern (T, T), values (T, d) and what the head gives (T, d), float64, of one run."""
    passed: dict[str, Tensor] = {}

    def keep(key: str, tensor: Tensor) -> None:
        passed[key] = tensor.detach().flatten(0, -2)[: len(ids)].clone()

    def keep_pattern(_: int, pattern: Tensor) -> None:
        passed["pattern"] = pattern[0, head].clone()

    taps = {
        "values": Tap(weights.v_rows.matrix.module, "output"),
        "given": Tap(weights.output.module, "input"),
    }
    with capture(taps, keep):
        watch_patterns(
            subject.model,
            subject.architecture,
            subject.inputs(list(ids)),
            keep_pattern,
            taps=subject.patterns,
            layers=[weights.layer],
        )
    values = weights.v_rows.of(passed["values"])[:, weights.group[head]]
    given = passed["given"].unflatten(-1, (weights.n_heads, -1))[:, head]
    return (
        passed["pattern"].double().cpu(),
        values.double().cpu(),
        given.double().cpu(),
    )


def _plane_of(values: Tensor) -> Tensor:
    """(d, 2): the top two right singular directions, the largest entry of each positive."""
    axes = torch.linalg.svd(values, full_matrices=True).Vh[:2].T
    if axes.shape[1] < 2:
        return torch.cat([axes, torch.zeros_like(axes)], dim=1)
    rows = axes.abs().argmax(0)
    signs = axes[rows, torch.arange(2)].sign()
    return axes * torch.where(signs == 0, 1.0, signs)


def _shuffle(pattern: Tensor, n_draws: int, generator: torch.Generator) -> Tensor:
    """(n_draws, T, T): each row's coefficients in a random order among the places it can take.

    A pattern with nothing above its diagonal is a causal one, whose rows reach up to themselves.
    """
    n_tokens = len(pattern)
    is_causal = not bool(pattern.triu(1).any())
    keys = torch.rand(n_draws, n_tokens, n_tokens, generator=generator)
    if is_causal:
        # Places that can't be taken sort behind all others, and their coefficients are 0.
        keys = keys.masked_fill(torch.ones(n_tokens, n_tokens).triu(1).bool(), 2.0)
    order = keys.argsort(dim=-1)
    return pattern.expand(n_draws, -1, -1).gather(-1, order)


def _kept(values: Tensor, mixed: Tensor, shuffled: Tensor) -> tuple[Share, ...]:
    """What remains of the values' variance and of their length after mixing."""
    spread, length = _spread(values), values.square().sum()
    return (
        _ratio(
            "variance of the values that remains after mixing",
            _spread(mixed),
            spread if float(spread) > _ALIKE**2 * float(length) else torch.zeros_like(spread),
            _spread(shuffled),
            "all values are the same",
        ),
        _ratio(
            "squared length of the values that remains after mixing",
            mixed.square().sum(),
            length,
            shuffled.square().sum((-2, -1)),
            "every value is zero",
        ),
    )


def _spread(vectors: Tensor) -> Tensor:
    """Σ over tokens of the squared distance to their mean; leading axes are kept."""
    return (vectors - vectors.mean(-2, keepdim=True)).square().sum((-2, -1))


def _ratio(name: str, value: Tensor, whole: Tensor, draws: Tensor, reason: str) -> Share:
    """A ratio, which may be above 1 where a pattern favours tokens of long values; None of 0."""
    if not float(whole):
        return Share(name, None, None, None, None, _SHUFFLED, 0, reason)
    return beside(name, float(value / whole), draws / whole, _SHUFFLED)


def _beside_random(values: Tensor, axes: Tensor) -> Share:
    """Beside random values in a plane chosen as this one: the top two directions of anything hold
    more than a random plane."""
    name = "squared length of the values in their top two directions"
    control = "as many random vectors in their own top two directions"
    value = share_in(values, axes)
    if value is None:
        return Share(name, None, None, None, None, control, 0, "every value is zero")
    return beside(name, value, random_matrix_share(*values.shape), control)


def _beside_shuffled(name: str, value: float | None, draws: Tensor) -> Share:
    if value is None or not bool(draws.isfinite().all()):
        return Share(name, None, None, None, None, _SHUFFLED, 0, "every mixture is zero")
    return beside(name, value, draws, _SHUFFLED)
