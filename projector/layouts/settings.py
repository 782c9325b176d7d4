"""The settings of a layout, and its name, which encodes them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields
from typing import Any

from projector.errors import SettingError, check_choice, check_least, is_number, named
from projector.layouts.objective import DEFAULT_SOLVER, STARTS, Settings, solver_names
from projector.layouts.registry import OBJECTIVES
from projector.settings import BY_SOME, CHOICES

__all__ = [
    "DEFAULT_LAYOUTS",
    "STARTS",
    "Layout",
    "check_distinct",
    "layout_name",
    "parse_layout",
    "parse_layouts",
]

# What a fit makes that is asked for no layout: distances, and neighbours.
DEFAULT_LAYOUTS = "stress-3d,neighbours-2d"
_MOST_SEED = 2**32 - 1
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"


@dataclass(frozen=True)
class Layout(Settings):
    """A layout: checked :class:`projector.layouts.objective.Settings`.

    A setting that its method doesn't read must keep its default. Otherwise two equal layouts would
    look different.

    Raises:
        SettingError: for an invalid value, or a setting that its method doesn't read.
    """

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("solver", self.solver, solver_names())
        check_choice("start", self.start, STARTS)
        if self.solver == self.record.methods[DEFAULT_SOLVER].name:
            object.__setattr__(self, "solver", DEFAULT_SOLVER)
        if self.solver not in self.record.methods:
            raise SettingError(
                "solver",
                self.solver,
                f"does not solve the objective {self.objective}",
                f"leave it out; {self.record.methods[DEFAULT_SOLVER].name} solves that",
            )
        if self.dim is None:
            object.__setattr__(self, "dim", self.record.dim)
        check_least("dim", self.dim, 1)
        if self.record.most_dim is not None and self.dim > self.record.most_dim:
            raise SettingError(
                "dim",
                self.dim,
                f"is too large for the objective {self.objective}",
                f"give at most {self.record.most_dim}, or leave it out",
            )
        if not 0 <= self.seed <= _MOST_SEED:
            raise SettingError("seed", self.seed, "is out of range", f"give 0 to {_MOST_SEED}")
        if not 1 <= self.p < math.inf:
            raise SettingError("p", self.p, "is not the order of a norm", "give 1 or more")
        if not 0 < self.lr < math.inf:
            raise SettingError("lr", self.lr, "is out of range", "give more than 0")
        check_least("accumulate", self.accumulate, 1)
        for each in fields(self):
            if each.metadata[BY_SOME] and each.name not in self.how.reads:
                self._check_unread(each)

    def _check_unread(self, each: Field[Any]) -> None:
        """Raise a SettingError if a setting without effect is other than its default."""
        value = getattr(self, each.name)
        if value == each.default:
            return
        others = [s for s, how in self.record.methods.items() if each.name in how.reads]
        remedy = f", or add {named('solver', others[0])}" if others else ""
        raise SettingError(
            each.name,
            value,
            f"has no effect on {self.objective} by {self.method}",
            f"leave it out{remedy}",
        )

    @property
    def name(self) -> str:
        """The objective, the dimension, and all non-default settings: ``stress-3d-absolute``.

        It is also used in file names: it has only letters, digits, dots, hyphens and plus signs.
        :func:`parse_layout` is the inverse.
        """
        return layout_name(asdict(self))


def layout_name(settings: Mapping[str, Any]) -> str:
    """The name of a layout with these settings; see :attr:`Layout.name`.

    The settings may be ones that no solver accepts, such as those of imported positions. Settings
    without effect, which older versions accepted, are left out of the name.
    """
    objective, solver = settings["objective"], settings["solver"]
    how = OBJECTIVES[objective].methods.get(solver) if objective in OBJECTIVES else None
    parts = [objective, f"{settings['dim']}d"]
    for each in _in_name():
        value = settings.get(each.name)
        is_read = not each.metadata[BY_SOME] or (how is not None and each.name in how.reads)
        if is_read and value is not None and value != each.default:
            parts.append(_part(each, value))
    return "-".join(parts)


def parse_layout(name: str) -> Layout:
    """Parse the name of a layout: the inverse of :attr:`Layout.name`.

    Non-default settings may be in any order, and the default dimension may be left out: ``linear``,
    ``stress-2d-seed1-absolute``.

    Raises:
        SettingError: on ``layouts``, for text that isn't a name of a layout; on a setting, for an
            invalid value.
    """
    text = name.strip()
    # Where the name of one objective begins that of another, the longer one is meant.
    known = sorted(OBJECTIVES, key=len, reverse=True)
    objective = next((o for o in known if f"{text}-".startswith(f"{o}-")), None)
    if objective is None:
        raise _unknown(name, f"begin with one of {', '.join(OBJECTIVES)}")
    rest = text[len(objective) :]
    found: dict[str, Any] = {"objective": objective}
    if dim := re.match(r"-(\d+)d(?=-|$)", rest):
        found["dim"] = int(dim[1])
        rest = rest[dim.end() :]
    while rest:
        for each in _in_name():
            part = re.match(f"-{_pattern(each)}(?=-|$)", rest)
            if part is not None and each.name not in found:
                found[each.name] = _value(each, part)
                rest = rest[part.end() :]
                break
        else:
            raise _unknown(
                name, f"write for example {objective}-{OBJECTIVES[objective].dim}d-seed1"
            )
    return Layout(**found)


def parse_layouts(text: str) -> tuple[Layout, ...]:
    """Parse names such as ``stress-3d,neighbours-2d`` to layouts, in order.

    Raises:
        SettingError: as for :func:`parse_layout`; and for a layout that occurs twice.
    """
    layouts = tuple(parse_layout(part) for part in text.split(","))
    check_distinct(layouts)
    return layouts


def check_distinct(layouts: Sequence[Layout]) -> None:
    """Raise a SettingError if two of these layouts are the same."""
    names = [layout.name for layout in layouts]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(
                "layouts", ",".join(names), f"names {name} twice", "name each layout once"
            )


def _in_name() -> list[Field[Any]]:
    """Settings that a name tells behind objective and dimension."""
    return [each for each in fields(Layout) if each.name not in ("objective", "dim")]


def _choices(each: Field[Any]) -> list[str]:
    return solver_names() if each.name == "solver" else list(each.metadata[CHOICES])


def _part(each: Field[Any], value: Any) -> str:
    """What a name says of a setting: ``absolute``, ``uniform``, ``seed1``."""
    if isinstance(each.default, bool):
        return each.name
    if isinstance(each.default, str):
        return str(value)
    if not is_number(value):
        return f"{each.name}{value}"
    number = float(value) if isinstance(each.default, float) else int(value)
    return f"{each.name}{number!r}"


def _pattern(each: Field[Any]) -> str:
    if isinstance(each.default, bool):
        return each.name
    if isinstance(each.default, str):
        return f"({'|'.join(map(re.escape, _choices(each)))})"
    return f"{each.name}({_NUMBER if isinstance(each.default, float) else r'[0-9]+'})"


def _value(each: Field[Any], part: re.Match[str]) -> Any:
    if isinstance(each.default, bool):
        return True
    kind: Any = type(each.default)
    return kind(part[1])


def _unknown(name: str, expected: str) -> SettingError:
    return SettingError("layouts", name, "isn't the name of a layout", expected)


def check_dimensions(layouts: Iterable[Layout], widths: Iterable[int]) -> None:
    """Raise a SettingError if a layout has too many dimensions for the narrowest map.

    Args:
        widths: number of neurons of each map; at least one map.
    """
    narrowest, most = min(widths), max(layout.dim for layout in layouts)
    if most >= narrowest:
        raise SettingError(
            "dim",
            most,
            "is too large",
            f"give at most {narrowest - 1:,}, because the narrowest map has {narrowest:,} neurons",
        )
