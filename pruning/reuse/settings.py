"""Settings and request of an experiment on reuse. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import floor, isfinite
from pathlib import Path

from projector.errors import SettingError, check_choice, check_least, check_seed
from projector.settings import setting
from projector.statistics.cross_layer.records import N_PARTNERS
from pruning.limits import DEFAULT_SEQUENCES, LEAST_SEQUENCES
from pruning.settings import (
    MEMORY_HELP,
    SEEDS_HELP,
    SEQUENCE_LENGTH_HELP,
    SEQUENCES_HELP,
    WINDOWS_HELP,
    check_each_once,
    check_texts,
)

# A reused neuron saves the vectors that it reads by, and not the one that it writes by: two of
# three where MLPs are gated, and one of two where they are not. So no more can be saved.
MOST_GATED, MOST_PLAIN = 2 / 3, 1 / 2
# In what projectors keep of a neuron's partners, there are so many.
MOST_PARTNERS = N_PARTNERS


@dataclass(frozen=True)
class ReuseSettings:
    """What to compare. Every field decides the rows.

    Attributes:
        shares: in [0, 2/3], or in [0, 1/2] for a model whose MLPs are not gated.
        n_seeds: seeds ``seed`` … ``seed`` + n − 1.
        n_windows: drawn evenly from the evaluation text, 64 by default; None for all of them, or a
            number larger than the text has, as on the command line.
        n_partners: neurons that one reused neuron is fitted to, 1 to 8.
        pruning_method: one of :data:`pruning.methods.registry.METHODS`.

    Raises:
        SettingError, UserError: on creation, for a value that isn't possible.
    """

    shares: tuple[float, ...] = setting(
        (0.05, 0.1, 0.2),
        help="Shares of the operations of all MLPs to save, comma-separated.",
    )
    n_seeds: int = setting(3, help=SEEDS_HELP)
    n_sequences: int = setting(DEFAULT_SEQUENCES, help=SEQUENCES_HELP)
    n_windows: int | None = setting(64, help=WINDOWS_HELP)
    n_partners: int = setting(
        1,
        help="If one partner beats random ones, also try reuse with this many partners per "
        f"neuron, at most {MOST_PARTNERS}.",
    )
    sequence_length: int | None = setting(None, help=SEQUENCE_LENGTH_HELP)
    pruning_method: str = setting(
        "obs", help="Pruning method to compare reuse with, refitted by least squares."
    )
    seed: int = setting(0, help="The first seed.")

    def __post_init__(self) -> None:
        from pruning.methods.registry import METHODS

        check_each_once("shares", self.shares)
        check_shares(self.shares)
        if not any(self.shares):
            raise SettingError("shares", 0, "saves nothing", "give one above 0")
        check_least("n_seeds", self.n_seeds, 1)
        check_least("n_sequences", self.n_sequences, LEAST_SEQUENCES)
        check_least("n_windows", self.n_windows, 1)
        check_least("n_partners", self.n_partners, 1)
        if self.n_partners > MOST_PARTNERS:
            raise SettingError(
                "n_partners", self.n_partners, "is too large", f"give {MOST_PARTNERS} or less"
            )
        check_least("sequence_length", self.sequence_length, 1)
        usable = [name for name, method in METHODS.items() if not method.needs_projection]
        check_choice("pruning_method", self.pruning_method, usable)
        check_seed("seed", self.seed)

    @property
    def seeds(self) -> range:
        """The seeds, in order."""
        return range(self.seed, self.seed + self.n_seeds)


def check_shares(shares: Collection[float], most: float = MOST_GATED) -> None:
    """Raise a SettingError unless so much of the MLPs' operations can be saved by reuse.

    Args:
        most: the largest share that the model's MLPs allow.
    """
    for share in shares:
        if not isfinite(share) or share < 0:
            raise SettingError("shares", share, "is impossible", "give 0 or more")
        if share > most:
            raise SettingError(
                "shares",
                share,
                "is more than reuse can save, because a reused neuron still needs its output "
                "column",
                f"give {floor(100 * most) / 100} or less",
            )


@dataclass(frozen=True)
class ReuseRequest:
    """The request of an experiment: its model, texts and settings, by name.

    Two runs of one report share every field that does not say otherwise.

    Attributes:
        model: ``bundled``, a local folder, a ``.gguf`` file, or a hub id.
        calibration, evaluation: see :func:`projector.corpus.sources.read_documents`.
        projection: the model's, one that holds partners of other layers; None to find them in the
            calibration text.
        memory_budget: bytes it may take in addition to the loaded model; None for all free memory,
            minus a margin.
    """

    model: str = setting(told_by="model")
    settings: ReuseSettings = setting(told_by="settings")
    calibration: str = setting(told_by="calibration")
    evaluation: str = setting(told_by="evaluation")
    projection: Path | None = setting(
        None,
        help="Folder of the model's projection with partners across layers, made by `projector "
        "fit --cross-layer`. By default partners are found in the calibration text.",
        told_by="projection",
    )
    revision: str | None = setting(None, told_by="model")
    device: str = setting("auto", told_by="device")
    dtype: str = setting("auto", told_by="dtype")
    trust_remote_code: bool = setting(False, may_differ=True)
    memory_budget: int | None = setting(None, help=MEMORY_HELP, may_differ=True, unit="bytes")

    def check(self) -> None:
        """Raise a UserError for what is wrong before anything is loaded."""
        check_texts(self.calibration, (self.evaluation,))
        check_least("memory_budget", self.memory_budget, 1)
