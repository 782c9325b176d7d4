"""All methods by name, in the order in which they are listed and swept."""

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

    Processes that share a sweep know only the methods that this module registers when it is
    imported. A sweep with other methods needs one process.

    Raises:
        ValueError: if another method has its name.
    """
    if method.name in METHODS:
        raise ValueError(f"there are two methods {method.name!r}")
    METHODS[method.name] = method


for _method in (RANDOM, MAGNITUDE, ACTIVATION, WANDA, FLAP, FOLDING, POLES, OBS):
    register(_method)


def method_named(name: str, setting: str = "method") -> Method:
    """The method with this name.

    Args:
        setting: name of the setting, for the error.

    Raises:
        SettingError: if there is no such method.
    """
    check_choice(setting, name, METHODS)
    return METHODS[name]
