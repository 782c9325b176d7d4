"""Help texts that list the registered methods and refits, and name the usual texts."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from pruning.settings import registered_words
from pruning.terminal.options import usual_words


class Told(TyperCommand):
    """A command whose help texts are templates (:class:`projector.settings.Template`).

    They are filled in when a person asks for help: they list everything that is registered then,
    and no other use of the command loads the rooms that know it.
    """

    def format_help(self, *given: Any, **options: Any) -> None:
        """As Typer writes it, the templates filled in."""
        texts = [(each, getattr(each, "help", None) or "") for each in self.params]
        try:
            for each, text in texts:
                each.help = filled(text)  # type: ignore[attr-defined]
            super().format_help(*given, **options)
        finally:
            # The next time something else may be registered.
            for each, text in texts:
                each.help = text  # type: ignore[attr-defined]


def filled(text: str) -> str:
    """A help text of a command of this package, its template filled in."""
    return text.format(**registered_words(), **usual_words()) if "{" in text else text
