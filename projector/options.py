"""What a user writes on a command line, read into what functions take."""

from __future__ import annotations

from projector.errors import UserError


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """``0,3-5`` → (0, 3, 4, 5)."""
    if text is None:
        return None
    layers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        numbers = [first, last] if dash else [first, first]
        if not all(n.isdecimal() and len(n) < 6 for n in numbers) or int(numbers[0]) > int(
            numbers[1]
        ):
            raise UserError(f"layers '{text}' can't be read: write for example 0,3-5")
        layers += range(int(numbers[0]), int(numbers[1]) + 1)
    return tuple(layers)


def parse_sites(text: str | None) -> tuple[str, ...] | None:
    """``mlp_post,attn_out`` → its parts."""
    return None if text is None else tuple(part.strip() for part in text.split(","))
