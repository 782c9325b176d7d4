"""The settings for training a tuned lens; importing this is fast."""

from __future__ import annotations

import math
from dataclasses import dataclass

from projector.errors import SettingError
from projector.residual.settings import check_numbers
from projector.settings import setting


@dataclass(frozen=True)
class TuningSettings:
    """The settings for training a tuned lens.

    Attributes:
        n_steps: number of steps of Adam, with a learning rate that decays linearly to 0.
        tokens_per_step: approximate number of tokens per step, in whole sequences, at least one.
        sequence_length: tokens per sequence; None for 256, or the model's context if that is
            shorter.
        learning_rate: learning rate of the first step.
        seed: seed of the order of sequences.

    Raises:
        SettingError: for an invalid value.
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
