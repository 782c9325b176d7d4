"""Train positions while the model runs: AdamW on one correlation matrix per batch, with Accelerate.

AdamW: Loshchilov & Hutter (2019), arXiv:1711.05101; its weight decay is 0, because it would
contract the map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from projector.errors import SettingError, check_choice
from projector.layouts.costs import dissimilarity, stress_loss
from projector.layouts.objective import Settings
from projector.layouts.start import start_positions
from projector.settings import BY_SOME

TRACKERS = ("tensorboard",)
# Points (n, d), their ρ (n, n) and the order of the norm → a scalar.
Loss = Callable[[Tensor, Tensor, float], Tensor]


class _Positions(nn.Module):
    """Trainable positions of one layer and site, and the loss of a batch's correlations."""

    def __init__(self, start: Tensor, loss: Loss, p: float) -> None:
        super().__init__()
        self.points = nn.Parameter(start)
        self.loss = loss
        self.p = p

    def forward(self, correlation: Tensor) -> Tensor:
        """Mean over the pairs whose ρ this batch defines."""
        alive = correlation.diagonal().isfinite()
        n = int(alive.sum())
        points, rho = self.points[alive], correlation[alive][:, alive]
        if n < 2:
            return points.sum() * 0
        return self.loss(points, rho, self.p)


class _Maps(nn.Module):
    """Several maps, trained side by side."""

    def __init__(self, maps: Mapping[str, _Positions]) -> None:
        super().__init__()
        # Module names hold no dots, and map names do: they are known here by number.
        self.names = list(maps)
        self.maps = nn.ModuleList(maps.values())

    def forward(self, correlations: Mapping[str, Tensor]) -> Tensor:
        """The loss of each map in ``correlations``, stacked."""
        return torch.stack(
            [self.maps[self.names.index(name)](rho) for name, rho in correlations.items()]
        )

    def points(self) -> dict[str, nn.Parameter]:
        """Name → positions."""
        return {
            name: each.points
            for name, each in zip(self.names, self.maps, strict=True)
            if isinstance(each, _Positions)
        }


class OnlineTrainer:
    """Trains the positions of several maps at once, with one optimizer step per batch.

    Args:
        dim: number of dimensions.
        loss: the loss to minimise; see :attr:`projector.layouts.objective.Objective.loss`.
        start: see :func:`projector.layouts.start.start_positions`; ``classical`` uses the first
            batch's correlations.
        lr: AdamW's learning rate.
        p: order of the norm, at least 1.
        accumulate: number of batches to accumulate gradients over before a step.
        seed: seed of the start.
        device: the device of the positions.
        log_with: name of an Accelerate tracker, or None.
        log_dir: the tracker's folder.
    """

    @classmethod
    def of(cls, layout: Settings, **more: Any) -> OnlineTrainer:
        """Create the trainer of a layout.

        It gets every setting that the layout's method reads, except ``absolute``, which affects the
        correlations it is given.

        Args:
            more: ``device``, ``log_with``, ``log_dir``.

        Raises:
            TypeError: for a setting that trainers don't support and that would have no effect.
        """
        loss = layout.record.loss
        assert loss is not None, f"the objective {layout.objective} can't be trained"
        told = {
            each.name: getattr(layout, each.name)
            for each in fields(layout)
            if each.name not in ("objective", "solver", "absolute")
            and (not each.metadata[BY_SOME] or each.name in layout.how.reads)
        }
        return cls(loss=loss, **told, **more)

    def __init__(
        self,
        dim: int,
        *,
        loss: Loss = stress_loss,
        start: str = "classical",
        lr: float = 3e-3,
        p: float = 2.0,
        accumulate: int = 1,
        seed: int = 0,
        device: torch.device | str = "cpu",
        log_with: str | None = None,
        log_dir: Path | None = None,
    ) -> None:
        self.dim, self.loss, self.start, self.lr, self.p = dim, loss, start, lr, p
        self.device = torch.device(device)
        self.n_batches = 0
        self.losses: dict[str, float] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._maps: _Maps | None = None
        self._group_is_open = False
        if log_with is not None:
            check_choice("log_with", log_with, TRACKERS)
        # What Accelerate knows of devices is one state for the whole process: positions are placed
        # here, so that trainers on several devices can follow one another.
        self._accelerator = Accelerator(
            device_placement=False,
            gradient_accumulation_steps=accumulate,
            mixed_precision="no",
            log_with=log_with,
            project_dir=None if log_dir is None else str(log_dir),
        )
        if log_with is not None and not self._accelerator.log_with:
            # Accelerate passes over a tracker whose package is missing without a word.
            raise SettingError(
                "log_with",
                log_with,
                "isn't installed",
                f"`pip install 'transformer-projector[{log_with}]'`, or leave it out",
            )
        self._logs = log_with is not None
        if self._logs:
            self._accelerator.init_trackers("projector")

    def step(self, correlations: Mapping[str, Tensor]) -> dict[str, float]:
        """Learn from one batch, with the (N, N) correlations of each map, NaN if undefined.

        It returns the loss of each map before the step. The first batch determines the maps.
        """
        batch = {name: rho.to(self.device, torch.float32) for name, rho in correlations.items()}
        if self._maps is None:
            self._build({name: self._start(rho) for name, rho in batch.items()})
        assert self._maps is not None
        with self._accelerator.accumulate(self._maps):
            losses = self._model(batch)
            # The maps share no parameter, so the sum's gradient is each map's own.
            self._accelerator.backward(losses.sum())
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._group_is_open = not self._accelerator.sync_gradients
        self.n_batches += 1
        self.losses = dict(zip(batch, losses.tolist(), strict=True))
        if self._logs:
            self._accelerator.log(self.losses, step=self.n_batches)
        return self.losses

    def positions(self) -> dict[str, Tensor]:
        """A copy of every map's positions, (N, dim) float32."""
        assert self._maps is not None, "no batch was read"
        return {name: points.detach().clone() for name, points in self._maps.points().items()}

    def close(self) -> None:
        """Take the last step, for fewer batches than ``accumulate``, and close the tracker."""
        if self._maps is not None and self._group_is_open:
            # Accelerate's own wrapper would wait for the group to be full.
            self._optimizer.optimizer.step()
            self._optimizer.optimizer.zero_grad()
            self._group_is_open = False
        if self._logs:
            self._accelerator.end_training()

    def state(self) -> dict[str, Tensor]:
        """The exact state as tensors: positions, accumulated gradients, moments and step counts."""
        if self._maps is None:
            return {}
        state = {
            "n_batches": torch.tensor(self.n_batches),
            "accumulated": torch.tensor(self._accelerator.step),
        }
        moments = self._optimizer.state_dict()["state"]
        for i, (name, points) in enumerate(self._maps.points().items()):
            state[f"{name}.points"] = points.detach()
            if points.grad is not None:
                state[f"{name}.gradient"] = points.grad
            for moment, value in moments.get(i, {}).items():
                state[f"{name}.adamw.{moment}"] = value
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        if not state:
            return
        names = [key.removesuffix(".points") for key in state if key.endswith(".points")]
        self._build({name: state[f"{name}.points"].to(self.device) for name in names})
        assert self._maps is not None
        self.n_batches = int(state["n_batches"])
        self._accelerator.step = int(state["accumulated"])
        moments = {
            i: {
                key.removeprefix(f"{name}.adamw."): value
                for key, value in state.items()
                if key.startswith(f"{name}.adamw.")
            }
            for i, name in enumerate(names)
        }
        self._optimizer.load_state_dict(
            {
                "state": {i: values for i, values in moments.items() if values},
                "param_groups": self._optimizer.state_dict()["param_groups"],
            }
        )
        for name, points in self._maps.points().items():
            if f"{name}.gradient" in state:
                points.grad = state[f"{name}.gradient"].to(self.device)
                self._group_is_open = True

    def _start(self, rho: Tensor) -> Tensor:
        # A neuron silent in the first batch may speak later: until then it correlates with none.
        return start_positions(
            self.start, dissimilarity(rho.nan_to_num(0.0)), self.dim, self._generator
        )

    def _build(self, starts: Mapping[str, Tensor]) -> None:
        self._maps = _Maps({name: _Positions(s, self.loss, self.p) for name, s in starts.items()})
        optimizer = torch.optim.AdamW(self._maps.parameters(), lr=self.lr, weight_decay=0.0)
        self._model, self._optimizer = self._accelerator.prepare(self._maps, optimizer)


def train_until_still(
    trainer: OnlineTrainer,
    correlation: Tensor,
    *,
    tolerance: float = 1e-4,
    n_patience: int = 200,
    max_steps: int = 20_000,
) -> Tensor:
    """Train on a fixed correlation matrix until ``n_patience`` steps together gain less than
    ``tolerance``.

    It returns the positions (N, dim) with the smallest loss.
    """
    best, best_loss, reference = None, math.inf, math.inf
    for step in range(max_steps):
        before = trainer.positions()["map"] if step else None
        loss = trainer.step({"map": correlation})["map"]
        if loss < best_loss and before is not None:
            best, best_loss = before, loss
        if (step + 1) % n_patience == 0:
            if best_loss >= reference * (1 - tolerance):
                break
            reference = best_loss
    return trainer.positions()["map"] if best is None else best
