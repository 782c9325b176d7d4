"""Help texts that list the registered methods, refits and sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from typer.core import TyperCommand


class Told(TyperCommand):
    """A command whose help texts hold ``{methods}``, ``{sources}`` and the like.

    They are filled in when a person asks for help: whatever is registered by then is told of, and
    no other use of the command waits for the rooms that know it.
    """

    def format_help(self, *given: Any, **options: Any) -> None:
        """As Typer writes it, the placeholders filled in."""
        words = _words()
        texts = [(each, getattr(each, "help", None) or "") for each in self.params]
        try:
            for each, text in texts:
                if "{" in text:
                    each.help = text.format(**words)  # type: ignore[attr-defined]
            super().format_help(*given, **options)
        finally:
            # The next time something else may be registered.
            for each, text in texts:
                if "{" in text:
                    each.help = text  # type: ignore[attr-defined]


class _Record(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def help(self) -> str: ...


def _words() -> dict[str, str]:
    from projector.corpus.sources import sources_help
    from pruning.methods.registry import METHODS
    from pruning.preparing import BUNDLED_TEXTS
    from pruning.refit.registry import REFITS

    methods, refits = METHODS.values(), REFITS.values()
    return {
        "sources": sources_help(),
        "usual_calibration": BUNDLED_TEXTS.calibration,
        "usual_evaluation": BUNDLED_TEXTS.evaluation,
        "methods": _listed(methods),
        "refits": _listed(refits),
        "method_names": ", ".join(METHODS),
        "refit_names": ", ".join(REFITS),
        "projection_methods": _named("method", (m.name for m in methods if m.needs_projection)),
        "training_refits": _named("refit", (r.name for r in refits if r.trains)),
    }


def _listed(records: Iterable[_Record]) -> str:
    return "; ".join(f"[b]{each.name}[/b]: {each.help}" for each in records)


def _named(what: str, names: Iterable[str]) -> str:
    found = list(names)
    return f"{what}{'' if len(found) == 1 else 's'} {' and '.join(found)}"
