"""How a tuned lens is trained: settings. Nothing heavy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from projector.errors import SettingError
from projector.residual.settings import check_numbers
from projector.settings import setting


@dataclass(frozen=True)
class TuningSettings:
    """How a tuned lens is trained.

    Attributes:
        n_steps: steps of Adam, whose rate falls linearly to 0.
        tokens_per_step: about how many tokens each step reads: whole sequences, at least one.
        sequence_length: tokens of a sequence; None for 256, or what the model takes if less.
        learning_rate: of the first step.
        seed: of the order in which sequences are read.

    Raises:
        SettingError: for a value that is not possible.
    """

    n_steps: int = setting(250, help="Number of training steps.")
    tokens_per_step: int = setting(
        512, help="Approximate number of tokens per step, in whole sequences."
    )
    sequence_length: int | None = setting(
        None,
        help="Tokens per sequence. By default 256, or the model's maximum if that is less.",
    )
    learning_rate: float = setting(
        3e-3, help="Learning rate of the first step; it falls to 0 by the last step."
    )
    seed: int = setting(0, help="Seed of the order in which sequences are read.")

    def __post_init__(self) -> None:
        check_numbers(
            n_steps=self.n_steps,
            tokens_per_step=self.tokens_per_step,
            sequence_length=self.sequence_length,
            seed=self.seed,
        )
        if not 0 < self.learning_rate < math.inf:
            raise SettingError(
                "learning_rate", self.learning_rate, "is out of range", "give more than 0"
            )
