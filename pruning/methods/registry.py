"""Every method by its name, in the order in which they are listed and swept."""

from __future__ import annotations

from projector.errors import check_choice
from pruning.methods.brain_surgery import OBS
from pruning.methods.folding import FOLDING
from pruning.methods.importance import ACTIVATION, FLAP, MAGNITUDE, RANDOM, WANDA
from pruning.methods.method import Method
from pruning.methods.standins import POLES

METHODS: dict[str, Method] = {}


def register(method: Method) -> None:
    """Add a method: every command, plan, sweep, help text and page then knows it.

    Processes that share a sweep are the exception: each knows only those of this repository, which
    are registered when this module is imported. A sweep of others takes one process.

    Raises:
        ValueError: if another has its name.
    """
    if method.name in METHODS:
        raise ValueError(f"there are two methods {method.name!r}")
    METHODS[method.name] = method


for _method in (RANDOM, MAGNITUDE, ACTIVATION, WANDA, FLAP, FOLDING, POLES, OBS):
    register(_method)


def method_named(name: str, setting: str = "method") -> Method:
    """The method of a name.

    Args:
        setting: where the user gave it.

    Raises:
        SettingError: if there is none.
    """
    check_choice(setting, name, METHODS)
    return METHODS[name]
