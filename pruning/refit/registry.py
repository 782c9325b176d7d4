"""Every refit by its name, in the order in which they are listed and swept."""

from __future__ import annotations

from projector.errors import check_choice
from pruning.refit.closed_form import BIAS, LEAST_SQUARES, NONE
from pruning.refit.reconstruction import RECONSTRUCT
from pruning.refit.record import Refit

REFITS: dict[str, Refit] = {}


def register(refit: Refit) -> None:
    """Add a refit: every command, sweep, figure, help text and page then knows it.

    Processes that share a sweep are the exception: each knows only those of this repository, which
    are registered when this module is imported. A sweep of others takes one process.

    Raises:
        ValueError: if another has its name.
    """
    if refit.name in REFITS:
        raise ValueError(f"there are two refits {refit.name!r}")
    REFITS[refit.name] = refit


for _refit in (NONE, BIAS, LEAST_SQUARES, RECONSTRUCT):
    register(_refit)


def refit_named(name: str, setting: str = "refit") -> Refit:
    """The refit of a name.

    Args:
        setting: where the user gave it.

    Raises:
        SettingError: if there is none.
    """
    check_choice(setting, name, REFITS)
    return REFITS[name]
