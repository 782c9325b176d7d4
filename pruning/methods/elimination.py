"""Remove neurons one by one, each time the one whose loss the other neurons make up for best.

The loss is measured at the block's output: E‖W h − W' h_K‖², W (H, N) being the output projection,
h the neurons, K those that stay and W' the best weights for them. It depends only on the moments M
= E[h hᵀ] (on the covariance, if a bias absorbs the mean).

One removal changes a whole matrix by a rank-one update. Updates are collected and applied in panels
of :data:`PANEL`, as matrix products; until then, the few rows that are needed are corrected as they
are read (as in LAPACK's blocked factorizations).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.methods.inverse import inverse_of

# Share of the usual second moment added to the diagonal: moments of few tokens are near singular.
DAMPING = 1e-4
# Updates that are applied together.
PANEL = 64
# Rows that are moved together.
_ROWS = 256
# Share of the neurons that are removed before the matrices are made smaller.
_GONE_SHARE = 1 / 8
# Additional neurons whose products with all others are computed when one is missing.
_MORE_PRODUCTS = 8


@dataclass(frozen=True)
class Elimination:
    """Neurons in the order they were removed, and the cost of each removal.

    ``order`` (n,) int64; ``costs`` (n,) float64, the loss at the block's output that each removal
    added.
    """

    order: Tensor
    costs: Tensor


def damped(moments: Tensor) -> Tensor:
    """The moments (N, N) with a slightly larger diagonal, as dead neurons make them singular."""
    regular = moments.clone()
    regular.diagonal().add_(DAMPING * usual_moment(moments))
    return regular


def usual_moment(moments: Tensor) -> Tensor:
    """The median second moment of the neurons that are not dead, (); 1 if all are.

    It isn't the mean, which a single neuron with huge activations would raise for all.
    """
    own = moments.diagonal()
    alive = own[own > 0]
    return alive.median() if len(alive) else torch.ones_like(own[0])


def eliminate(moments: Tensor, output: Tensor, n_removed: int) -> Elimination:
    """Greedy optimal brain surgery on whole neurons.

    With P = M⁻¹, removing j and refitting all others costs ‖w_j‖² / P_jj; then
    W ← W − w_j P_j· / P_jj and P ← P − P_·j P_j· / P_jj. Hassibi and Stork 1992 (second-order
    derivatives for network pruning), by structures as in Kurtić et al. 2023 (arXiv:2302.04089).

    Args:
        moments: M, (N, N) float64, regular.
        output: W, (H, N) float64.
        n_removed: number of neurons to remove.

    Costs an inverse, and n_removed updates of the rest of (N, N) and (H, N), in panels. Besides its
    arguments it holds one (N, N) matrix, one and a half while inverting; one (N, H) matrix; and
    some hundred rows of N.
    """
    state = _Surgery(inverse_of(moments), output.T.clone(memory_format=torch.contiguous_format))
    order: list[Tensor] = []
    costs: list[float] = []
    while len(costs) < n_removed:
        removed, each = state.remove(min(PANEL, n_removed - len(costs)))
        order.append(removed)
        costs += each
    places = torch.cat(order) if order else torch.zeros(0, dtype=torch.int64)
    return Elimination(places.cpu(), torch.tensor(costs, dtype=torch.float64))


class _Surgery:
    """The neurons that are left, n of N.

    Attributes:
        inverse: P, (n, n); columns: those of W, as rows (n, H); neuron: which ones they are, (n,).
        is_left: (n,) bool; the others are dropped once they are many.
    """

    def __init__(self, inverse: Tensor, columns: Tensor) -> None:
        self.inverse, self.columns = inverse, columns
        self.neuron = torch.arange(len(inverse), device=inverse.device)
        self.is_left = torch.ones(len(inverse), dtype=torch.bool, device=inverse.device)

    def remove(self, n_removed: int) -> tuple[Tensor, list[float]]:
        """Remove the cheapest, n_removed times; who went, and what each cost."""
        steps = self.inverse.new_empty(n_removed, len(self.inverse))
        moved = self.columns.new_empty(n_removed, self.columns.shape[1])
        # Products of each of ``moved`` with all columns as they were at first.
        crossed = torch.empty_like(steps)
        own, power = self.inverse.diagonal().clone(), self.columns.pow(2).sum(dim=1)
        products = _ColumnProducts(self.columns)
        places, costs = [], []
        for i in range(n_removed):
            losses = torch.where(self.is_left, power / own, torch.inf)
            j = int(losses.argmin())
            before = steps[:i, j]
            step = torch.addmv(self.inverse[j], steps[:i].T, before, alpha=-1)
            weight = torch.addmv(self.columns[j], moved[:i].T, before, alpha=-1)
            # Rounding must not make it negative.
            pivot = max(float(step[j]), torch.finfo(step.dtype).tiny)
            places.append(j)
            costs.append(float(weight @ weight) / pivot)
            root = pivot**-0.5
            cross = torch.addmv(products.of(j, losses, n_removed), crossed[:i].T, before, alpha=-1)
            torch.mul(step, root, out=steps[i])
            torch.mul(weight, root, out=moved[i])
            torch.mul(cross, root, out=crossed[i])
            # Products with the columns as they are now.
            now = torch.addmv(crossed[i], steps[:i].T, moved[:i] @ moved[i], alpha=-1)
            square = steps[i].square()
            own -= square
            power.addcmul_(steps[i], now, value=-2).add_(square, alpha=costs[-1])
            power.clamp_min_(0)
            self.is_left[j] = False
        self.inverse.addmm_(steps.T, steps, alpha=-1)
        self.columns.addmm_(steps.T, moved, alpha=-1)
        removed = self.neuron[places]
        left = self.is_left.nonzero()[:, 0]
        if len(left) < (1 - _GONE_SHARE) * len(self.neuron):
            self.inverse = _packed(self.inverse, left)
            self.columns, self.neuron = self.columns[left], self.neuron[left]
            self.is_left = self.is_left[left]
        return removed, costs


class _ColumnProducts:
    """Products w_j · w_k of one column with all, those of likely ones made together."""

    def __init__(self, columns: Tensor) -> None:
        self.columns = columns
        self._place: dict[int, Tensor] = {}

    def of(self, j: int, losses: Tensor, n_likely: int) -> Tensor:
        """Products of column j, (n,); if unknown, those with the lowest ``losses`` are computed
        with it.
        """
        if j not in self._place:
            # At first those of a panel and half as many again, for the cheapest change.
            n = _MORE_PRODUCTS if self._place else n_likely + n_likely // 2
            likely = losses.topk(min(n, len(losses)), largest=False).indices.tolist()
            asked = sorted({j, *likely} - set(self._place))
            made = self.columns[asked] @ self.columns.T
            self._place.update(zip(asked, made, strict=True))
        return self._place[j]


def _packed(matrix: Tensor, left: Tensor) -> Tensor:
    """Rows and columns ``left`` (n,), rising, of a square matrix, moved within its memory."""
    n, flat = len(left), matrix.view(-1)
    for start in range(0, n, _ROWS):
        rows = left[start : start + _ROWS]
        # Never beyond rows that have been read: left[i] ≥ i.
        part = matrix[rows].index_select(1, left).view(-1)
        flat[start * n : start * n + len(part)] = part
    return flat[: n * n].view(n, n)


class Exchange:
    """Trades a removed neuron for a kept one if that lowers the loss.

    Holds the moments swept on the kept neurons (Beaton 1964; Goodnight 1979, the SWEEP operator):
    −M_KK⁻¹ among the kept, the residual moments S_RR among the removed, and between them the
    coefficients S_RK with which the kept ones predict the removed. The output is swept with them:
    W_K + W_R S_RK, the best weights of the kept, and W_R S_RR, the part of the output's moments
    with the removed that the kept don't explain. So a few rows are enough to judge a trade; a trade
    that is made sweeps twice, N² each, in panels. Output weights are (H, N), moments (N, N), both
    float64.

    Besides its arguments it holds one (N, N) and one (N, H) matrix; during construction at most two
    and a half (N, N) and two (N, H).
    """

    def __init__(self, moments: Tensor, output: Tensor, kept: Tensor) -> None:
        n = len(moments)
        self.is_kept = torch.zeros(n, dtype=torch.bool)
        self.is_kept[kept] = True
        inside = self.is_kept.nonzero()[:, 0]
        outside = (~self.is_kept).nonzero()[:, 0]
        inverse = inverse_of(_block(moments, inside, inside))
        self._swept = torch.empty_like(moments)
        self._swept[inside[:, None], inside] = -inverse
        cross = _block(moments, outside, inside)
        coefficients = cross @ inverse
        del inverse
        self._swept[outside[:, None], inside] = coefficients
        self._swept[inside[:, None], outside] = coefficients.T
        rest = _block(moments, outside, outside).addmm_(coefficients, cross.T, alpha=-1)
        self._swept[outside[:, None], outside] = rest
        columns = output.T[outside]
        self._fitted = output.T.clone(memory_format=torch.contiguous_format)
        self._fitted[inside] += coefficients.T @ columns
        self._fitted[outside] = rest @ columns
        # What is kept back of the changes: −Σ steps_k scales_k steps_kᵀ, and −Σ steps_k moved_kᵀ.
        self._n_steps = 0
        self._steps = moments.new_empty(PANEL, n)
        self._scales = moments.new_empty(PANEL)
        self._moved = output.new_empty(PANEL, len(output))

    @property
    def swept(self) -> Tensor:
        """The swept moments, (N, N)."""
        self._settle()
        return self._swept

    def gains(self) -> tuple[Tensor, Tensor]:
        """The removed neurons, (R,), and the loss that taking each back would save, (R,)."""
        self._settle()
        outside = (~self.is_kept).nonzero()[:, 0]
        own = self._swept.diagonal()[outside]
        variance = own.clamp_min(torch.finfo(own.dtype).tiny)
        return outside, self._fitted[outside].pow(2).sum(dim=1) / variance

    def trade(self, taken: int, givers: Tensor) -> bool:
        """Take ``taken`` back, and remove the kept neuron of ``givers`` (G,) that costs least.

        Returns whether that lowered the loss; if not, nothing has changed.
        """
        scales = self._scales[: self._n_steps]
        own, mine = self._steps[: self._n_steps, taken], self._steps[: self._n_steps, givers]
        pivot = float(self._swept[taken, taken] - own.square() @ scales)
        row = self._swept[taken, givers] - (own * scales) @ mine
        weight = self._fitted_row(taken)
        gain = float(weight @ weight) / pivot
        # The few entries that are needed, as a sweep on ``taken`` would change them.
        step = row / pivot
        weights = self._fitted[givers].addmm_(mine.T, self._moved[: self._n_steps], alpha=-1)
        weights.addr_(step, weight, alpha=-1)
        inverse = row * step - (self._swept.diagonal()[givers] - scales @ mine.square())
        costs = weights.pow(2).sum(dim=1) / inverse
        cheapest = int(costs.argmin())
        # Rounding alone must not cause trades.
        if float(costs[cheapest]) >= gain * (1 - 1e-9):
            return False
        given = int(givers[cheapest])
        self.sweep(taken)
        self.sweep(given)
        return True

    def sweep(self, j: int) -> None:
        """Sweep on pivot j: moves neuron j from one side to the other."""
        if self._n_steps == PANEL:
            self._settle()
        n = self._n_steps
        step = torch.addmv(
            self._swept[j], self._steps[:n].T, self._steps[:n, j] * self._scales[:n], alpha=-1
        )
        weight, pivot = self._fitted_row(j), float(step[j])
        # Its own row and column are updated now, and left out of the collected updates.
        own = step / abs(pivot)
        own[j] = -1 / pivot
        self._swept[j], self._swept[:, j] = own, own
        self._fitted[j] = weight / abs(pivot)
        self._steps[n] = step
        self._steps[: n + 1, j] = 0
        self._scales[n] = 1 / pivot
        self._moved[n] = weight / pivot
        self._n_steps = n + 1
        self.is_kept[j] = ~self.is_kept[j]

    def _fitted_row(self, j: int) -> Tensor:
        n = self._n_steps
        return torch.addmv(self._fitted[j], self._moved[:n].T, self._steps[:n, j], alpha=-1)

    def _settle(self) -> None:
        """Make the changes that are kept back."""
        steps, n = self._steps[: self._n_steps], self._n_steps
        self._swept.addmm_((steps * self._scales[:n, None]).T, steps, alpha=-1)
        self._fitted.addmm_(steps.T, self._moved[:n], alpha=-1)
        self._n_steps = 0


def _block(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Some rows and columns of a matrix."""
    return matrix[rows[:, None], columns]
