"""What to fit: the settings of a fit, apart from how positions are found. Nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from projector.errors import check_choice, check_least
from projector.settings import setting
from projector.sites import check_sites, sites_help

CORRELATIONS = ("pooled", "per-sequence")
LEAST_TOKENS = 100


@dataclass(frozen=True)
class FitSettings:
    """What to fit, apart from how positions are found (:class:`projector.layouts.solving.Layout`).

    A run is told apart from another by every field that does not say otherwise: see
    :func:`projector.settings.setting`.

    Attributes:
        sites: sites to read; None for the default ones that the model has.
        layers: layers to read; None for all.
        correlation: ``pooled`` or ``per-sequence``.
        max_tokens: most tokens to count, drawn evenly over the corpus; None for all.
        sequence_length: tokens of a sequence; None for 256, or what the model can take if less.
        batch_size: sequences at once.
        packed: whether documents stand one after another in a sequence; None where the model is
            causal.
        skip_first: positions left out at the start of each sequence; None for 1 where the model is
            causal and 0 where it is not.
        keep_statistics: whether the projection keeps means and covariances.
        memory_budget: bytes that the fit may take beside the loaded model; None for what is free,
            less a margin. Where not all maps fit at once, the corpus is passed over more than once.

    Raises:
        SettingError: for a value that can't be.
    """

    sites: tuple[str, ...] | None = setting(None, help=sites_help)
    layers: tuple[int, ...] | None = setting(None, help="For example 0,3-5. All by default.")
    correlation: str = setting(
        "pooled",
        help="[b]pooled[/b] over all tokens, or [b]per-sequence[/b]: the mean of each sequence's "
        "own matrix.",
        choices=CORRELATIONS,
    )
    max_tokens: int | None = setting(
        None, help="Most tokens to count, drawn evenly over the corpus. All by default."
    )
    sequence_length: int | None = setting(
        None, help="Tokens of a sequence. 256, or what the model takes."
    )
    batch_size: int = setting(16, help="Sequences at once.")
    packed: bool | None = setting(
        None, help="Let documents share a sequence. By default where the model is causal."
    )
    skip_first: int | None = setting(
        None,
        help="Positions left out at the start of each sequence. 1 where the model is causal.",
    )
    keep_statistics: bool = setting(True, help="Keep positions only: far smaller on disk.")
    memory_budget: int | None = setting(
        None,
        help="Most memory beside the model, for example 8GiB: where not all maps fit, the model "
        "runs over the corpus more than once. What is free, less a margin.",
        unit="bytes",
    )

    def __post_init__(self) -> None:
        check_choice("correlation", self.correlation, CORRELATIONS)
        check_sites(self.sites)
        check_least("batch_size", self.batch_size, 1)
        check_least("sequence_length", self.sequence_length, 2)
        check_least("skip_first", self.skip_first, 0)
        check_least("max_tokens", self.max_tokens, LEAST_TOKENS)
        check_least("memory_budget", self.memory_budget, 1)
