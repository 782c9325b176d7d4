"""Parse command-line values, and options that many commands share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from projector.errors import SettingError
from projector.settings import setting

SavedProjection = Annotated[Path, typer.Argument(metavar="DIR", help="A saved projection.")]


@dataclass(frozen=True)
class OutOptions:
    """The output folder of a projection."""

    out: Path = setting(help="Folder for the new projection.")
    force: bool = setting(False, help="Replace the projection that OUT holds.")


@dataclass(frozen=True)
class LoadingOptions:
    """How a model is loaded; the arguments of :func:`projector.model.loading.load_model`."""

    device: str = setting("auto", help="Device to run on: auto, cpu, cuda, cuda:1 or mps.")
    dtype: str = setting(
        "auto", help="Type that the model computes in: auto, float32, bfloat16 or float16."
    )
    revision: str | None = setting(None, help="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = setting(False, help="Run the code that comes with the model.")


@dataclass(frozen=True)
class ModelOptions(LoadingOptions):
    """How a model is loaded that may be spread over several devices."""

    device_map: str | None = setting(
        None, help="auto: spread the model over all devices, if it doesn't fit on one."
    )


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_layers(text: str | None, setting: str = "layers") -> tuple[int, ...] | None:
    """``0,3-5`` → (0, 3, 4, 5).

    Raises:
        SettingError: on ``setting``, for invalid text.
    """
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first, first]
        if not all(n.isdecimal() and len(n) < 6 for n in numbers) or int(numbers[0]) > int(
            numbers[1]
        ):
            raise SettingError(setting, text, "can't be read", "write for example 0,3-5")
        layers += range(int(numbers[0]), int(numbers[1]) + 1)
    return tuple(layers)


def parse_sites(text: str | None, setting: str = "sites") -> tuple[str, ...] | None:
    """``mlp_post,attn_out`` → its parts, without empty ones; ``("",)`` if there are no others."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    return tuple(filter(None, parts)) or ("",)


def parse_names(text: str | None, setting: str) -> tuple[str, ...] | None:
    """``random, obs`` → its parts, without empty ones; ``()`` if there are no others."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_numbers(text: str | None, setting: str) -> tuple[float, ...] | None:
    """``0.1, 0.3`` → its parts.

    Raises:
        SettingError: on ``setting``, for another text.
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingError(setting, text, "can't be read", "write for example 0.1,0.3") from error


def parse_size(text: str | None, setting: str = "memory_budget") -> int | None:
    """``8GiB``, ``500 MB`` or ``1.5g`` → bytes.

    Raises:
        SettingError: on ``setting``, for invalid text.
    """
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", text, re.IGNORECASE)
    if found is None or (found[3] and not found[2]):
        raise SettingError(setting, text, "can't be read", "write for example 8GiB or 500MB")
    unit = found[2].lower()
    return int(float(found[1]) * (_BINARY_UNITS[unit] if found[3] else _UNITS[unit]))


# Settings whose option has another name than theirs.
_OPTIONS: dict[str, str] = {}
# Switches, whose option is named for what it does.
_SWITCHES = {
    ("keep_statistics", False): "--no-statistics",
    ("keep_examples", False): "--no-examples",
    ("packed", False): "--no-pack",
    ("packed", True): "--pack",
}


def name_options(**options: str) -> None:
    """Register option names that differ from the names of settings: ``p="--lp"``.

    ``on="--yes/--no"`` names both options of a switch, ``on="/--no"`` only the one that turns it
    off. Each package registers those of its own commands.
    """
    for name, words in options.items():
        yes, slash, no = words.partition("/")
        if slash:
            _SWITCHES.update({(name, False): no} | ({(name, True): yes} if yes else {}))
        else:
            _OPTIONS[name] = words


name_options(p="--lp", packed="--pack")
# An option for a count is called by what it counts.
name_options(
    length="--repeat-length",
    n_last="--last",
    n_neurons="--neurons",
    n_new="--new-tokens",
    n_random="--random-heads",
    n_sequences="--sequences",
    n_shuffles="--shuffles",
    n_steps="--steps",
    n_top="--top",
)


def option_words(setting: str, value: tuple[Any, ...]) -> str:
    """The command-line form of a setting: ``--dim``, ``--force``, ``--solver adamw``.

    A switch has no opposite option; its opposite is written as ``no --force``.
    """
    option = _OPTIONS.get(setting, "--" + setting.replace("_", "-"))
    if not value:
        return option
    if isinstance(value[0], bool):
        opposite = _SWITCHES.get((setting, not value[0]), None if value[0] else option)
        otherwise = option if opposite is None else f"no {opposite}"
        return _SWITCHES.get((setting, value[0]), otherwise)
    return f"{option} {value[0]}"


def options_given(settings: Any, defaults: Mapping[str, Any] | None = None) -> str:
    """The command-line options for a dataclass of settings, quoted, each after a space.

    Options with default values are left out.

    Args:
        defaults: default values that were computed, by field.
    """
    words = ""
    for each in fields(settings):
        value = getattr(settings, each.name)
        default = (defaults or {}).get(each.name, each.default)
        if value == default or value is None:
            continue
        if isinstance(value, bool):
            words += f" {option_words(each.name, (value,))}"
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words += f" {option_words(each.name, ())} {quote(text)}"
    return words
