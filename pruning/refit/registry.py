"""All refits by name, in the order in which they are listed and swept."""

from __future__ import annotations

from projector.errors import check_choice
from pruning.refit.closed_form import BIAS, LEAST_SQUARES, NONE
from pruning.refit.reconstruction import RECONSTRUCT
from pruning.refit.record import Refit

REFITS: dict[str, Refit] = {}


def register(refit: Refit) -> None:
    """Add a refit: every command, sweep, figure, help text and page then knows it.

    Processes that share a sweep know only the refits that this module registers when it is
    imported. A sweep with other refits needs one process.

    Raises:
        ValueError: if another refit has its name.
    """
    if refit.name in REFITS:
        raise ValueError(f"there are two refits {refit.name!r}")
    REFITS[refit.name] = refit


for _refit in (NONE, BIAS, LEAST_SQUARES, RECONSTRUCT):
    register(_refit)


def refit_named(name: str, setting: str = "refit") -> Refit:
    """The refit with this name.

    Args:
        setting: name of the setting, for the error.

    Raises:
        SettingError: if there is no such refit.
    """
    check_choice(setting, name, REFITS)
    return REFITS[name]
