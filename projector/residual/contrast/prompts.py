"""Two sets of prompts, read from files or drawn from a built-in pair."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from projector.errors import SettingError, UserError, named
from projector.residual.contrast.pairs.pair import Couple, Fits
from projector.residual.contrast.pairs.registry import DEFAULT_PAIR, find_pair

if TYPE_CHECKING:
    from projector.residual.contrast.settings import ContrastSettings
    from projector.residual.subject import Subject

FEWEST_PROMPTS = 10
# Of a pair, in each set.
N_DRAWN = 256
_TEXT_SUFFIXES, _JSON_SUFFIXES = ("", ".txt"), (".jsonl", ".ndjson")
_FIELDS = ("prompt", "text")
# As an error shows what a line of JSON holds.
_MOST_SHOWN = 60


@dataclass(frozen=True)
class PromptSets:
    """Two disjoint sets of prompts, each with at least ten distinct prompts.

    Attributes:
        name: the pair's name, or "A against B" by the names of the files.
        positive: the texts of the first set.
        negative: the texts of the second set.
        positive_name: description of the first set, for axes and legends.
        negative_name: description of the second set.
        positive_groups: a group number for each text of the first set. Texts of a group belong
            together, also across the sets, and are never on both sides of a cross-validation split.
        negative_groups: the same for the second set.
        notes: remarks about prompts that were left out, and about what a pair doesn't control for;
            without paths.
        sha256: hash of all texts, in order.
        positive_places: file and line of each text of the first set, for errors; empty for a pair.
        negative_places: the same for the second set.
    """

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    positive_name: str
    negative_name: str
    positive_groups: tuple[int, ...]
    negative_groups: tuple[int, ...]
    notes: tuple[str, ...]
    sha256: str
    positive_places: tuple[str, ...] = ()
    negative_places: tuple[str, ...] = ()


def choose_sets(settings: ContrastSettings, fits: Fits | None = None) -> PromptSets:
    """Choose the two sets from the settings: from files, or from a pair.

    Args:
        fits: whether a drawn text is short enough. A text from a file that is too long is an error
            when it is encoded.

    Raises:
        SettingError, UserError: as for :func:`read_sets` and :func:`draw_pair`.
    """
    if settings.positive is not None and settings.negative is not None:
        return read_sets(settings.positive, settings.negative)
    return draw_pair(settings.pair or DEFAULT_PAIR, seed=settings.seed, fits=fits)


def check_files(settings: ContrastSettings) -> None:
    """Raise the errors of :func:`read_sets` before a model is loaded; a pipe is not read twice."""
    positive, negative = settings.positive, settings.negative
    if positive is None or negative is None or positive.is_fifo() or negative.is_fifo():
        return
    read_sets(positive, negative)


def read_sets(positive: Path, negative: Path) -> PromptSets:
    """Read two sets from two files.

    A ``.txt`` file, or one without a suffix, has one prompt per line. A ``.jsonl`` file has in each
    line a text, or an object with a text under "prompt" or "text"; such a prompt may contain line
    ends. Blank lines, repeated prompts, and prompts in both files are left out and counted. Prompts
    are used exactly as written, including spaces. Each prompt is a group of its own.

    Raises:
        SettingError: on ``positive`` or ``negative``, if the file doesn't exist, is a folder, has
            another type, isn't UTF-8, or has fewer than ten usable prompts.
        UserError: on the same setting, if a line of JSON can't be used, with the file and the line.
    """
    paths = {"positive": Path(positive), "negative": Path(negative)}
    names = {setting: path.stem or path.name for setting, path in paths.items()}
    if names["positive"] == names["negative"]:
        names = {setting: f"{name} ({setting})" for setting, name in names.items()}
    read = {setting: _read(path, setting, names[setting]) for setting, path in paths.items()}
    notes = [note for each in read.values() for note in each.notes]
    shared = read["positive"].prompts.keys() & read["negative"].prompts.keys()
    if shared:
        left_out = "1 prompt is" if len(shared) == 1 else f"{len(shared):,} prompts are"
        notes.append(f"{left_out} in both sets and left out of both.")
    kept = {
        setting: {text: place for text, place in each.prompts.items() if text not in shared}
        for setting, each in read.items()
    }
    for setting, prompts in kept.items():
        if len(prompts) < FEWEST_PROMPTS:
            beside = f" besides {len(shared):,} that are in both sets" if shared else ""
            n = f"{len(prompts):,} {'prompt' if len(prompts) == 1 else 'different prompts'}"
            raise SettingError(
                setting,
                str(paths[setting]),
                f"holds {n if prompts else 'no prompt'}{beside}",
                f"give at least {FEWEST_PROMPTS}",
            )
    first, second = tuple(kept["positive"]), tuple(kept["negative"])
    n_first = len(first)
    return PromptSets(
        name=f"{names['positive']} against {names['negative']}",
        positive=first,
        negative=second,
        positive_name=names["positive"],
        negative_name=names["negative"],
        positive_groups=tuple(range(n_first)),
        negative_groups=tuple(range(n_first, n_first + len(second))),
        notes=tuple(notes),
        sha256=_hash(first, second),
        positive_places=tuple(kept["positive"].values()),
        negative_places=tuple(kept["negative"].values()),
    )


def draw_pair(
    name: str, *, n: int = N_DRAWN, seed: int = 0, fits: Fits | None = None
) -> PromptSets:
    """Draw two sets from a built-in pair, with equal numbers of prompts, couple by couple.

    Args:
        name: of :data:`~projector.residual.contrast.pairs.registry.PAIRS`.
        n: largest number of prompts per set; if the pair has fewer, a note says so.
        seed: of the draw.
        fits: whether a text is usable, for example not longer than a model's context. Couples with
            an unusable text are skipped, and a note counts them.

    Raises:
        SettingError: on ``pair``, if there is no pair with this name, or fewer than ten couples
            fit.
    """
    pair = find_pair(name)
    couples: list[Couple] = []
    n_passed = 0
    for each in pair.couples(Random(f"{name} {seed}")):
        if len(couples) == n:
            break
        if fits is None or (fits(each.positive) and fits(each.negative)):
            couples.append(each)
        else:
            n_passed += 1
    if len(couples) < FEWEST_PROMPTS:
        raise SettingError(
            "pair",
            name,
            f"has only {len(couples):,} prompts that are short enough for the model's context"
            if n_passed
            else f"finds only {len(couples):,} prompts here",
            f"give files of shorter prompts for {named('positive')} and {named('negative')}",
        )
    notes = []
    if n_passed:
        which = (
            "1 couple of prompts is" if n_passed == 1 else f"{n_passed:,} couples of prompts are"
        )
        notes.append(f"{which} longer than the model's context and left out.")
    if len(couples) < n:
        notes.append(
            f"The pair {name} has {len(couples):,} prompts per set, fewer than the {n:,} requested."
        )
    if pair.caution:
        notes.append(pair.caution)
    numbers = {group: i for i, group in enumerate(dict.fromkeys(each.group for each in couples))}
    groups = tuple(numbers[each.group] for each in couples)
    first = tuple(each.positive for each in couples)
    second = tuple(each.negative for each in couples)
    return PromptSets(
        name=name,
        positive=first,
        negative=second,
        positive_name=pair.positive_name,
        negative_name=pair.negative_name,
        positive_groups=groups,
        negative_groups=groups,
        notes=tuple(notes),
        sha256=_hash(first, second),
    )


def encode_sets(subject: Subject, sets: PromptSets) -> tuple[list[list[int]], list[list[int]]]:
    """Encode every prompt for the model: one list of token ids per prompt, for each set.

    Raises:
        UserError: on ``positive`` or ``negative``, if a prompt is longer than the model's context
            or has no token in its vocabulary, with the file and line, its number of tokens and the
            limit.
    """
    sides = (
        ("positive", sets.positive, sets.positive_places),
        ("negative", sets.negative, sets.negative_places),
    )
    found = []
    for setting, texts, places in sides:
        ids = []
        for i, text in enumerate(texts):
            try:
                ids.append(subject.encode(text))
            except UserError as error:
                place = places[i] if places else f"prompt {i + 1:,} of the pair {sets.name}"
                raise UserError(
                    f"{place}: {error.args[0]}",
                    setting=setting,
                    value=text,
                    expected=error.expected,
                ) from error
        found.append(ids)
    return found[0], found[1]


def fits_all(subjects: Sequence[Subject]) -> Fits:
    """Create a check for :func:`draw_pair` that a text fits into the context of every model."""

    def fits(text: str) -> bool:
        try:
            return all(len(each.encode(text)) > 0 for each in subjects)
        except UserError:
            return False

    return fits


def tokenizer_note(subjects: Sequence[Subject], sets: PromptSets) -> str | None:
    """A sentence if the models tokenize the prompts differently; otherwise None."""
    texts = (*sets.positive[:FEWEST_PROMPTS], *sets.negative[:FEWEST_PROMPTS])
    read = {tuple(tuple(each.encode(text)) for text in texts) for each in subjects}
    if len(read) < 2:
        return None
    return "The models have different tokenizers, and each reads the prompts as its own tokens."


@dataclass(frozen=True)
class _Read:
    """The prompts of a file, each with its place, and what was left out."""

    prompts: dict[str, str]
    notes: tuple[str, ...]


def _read(path: Path, setting: str, name: str) -> _Read:
    suffix = path.suffix.lower()
    if suffix not in (*_TEXT_SUFFIXES, *_JSON_SUFFIXES):
        raise SettingError(
            setting, str(path), "has an unsupported file type", "give a .txt or .jsonl file"
        )
    lines = _text(path, setting).split("\n")
    # What follows the last line's end is no line.
    if lines and not lines[-1]:
        lines.pop()
    prompts: dict[str, str] = {}
    n_blank = n_repeated = 0
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        place = f"'{path}' line {number:,}"
        if suffix in _JSON_SUFFIXES and line.strip():
            line = _of_json(line, place, setting)
        if not line.strip():
            n_blank += 1
        elif line in prompts:
            n_repeated += 1
        else:
            prompts[line] = place
    return _Read(prompts, tuple(_left_out(name, n_blank, n_repeated)))


def _left_out(name: str, n_blank: int, n_repeated: int) -> Iterator[str]:
    for n, what in ((n_blank, "empty line"), (n_repeated, "repeated prompt")):
        if n == 1:
            yield f"1 {what} of {name} is left out."
        elif n:
            yield f"{n:,} {what}s of {name} are left out."


def _text(path: Path, setting: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingError(setting, str(path), "does not exist", "give a file") from error
    except IsADirectoryError as error:
        raise SettingError(
            setting, str(path), "is a folder", "give one file with one prompt a line"
        ) from error
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at {error.start:,}"
        raise SettingError(
            setting, str(path), f"is not UTF-8 ({byte})", "convert it, for example with iconv"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SettingError(
            setting, str(path), f"can't be read ({reason})", "give another file"
        ) from error
    # Windows programs write a byte order mark, which does not belong to the text.
    return text.removeprefix("\ufeff")


def _of_json(line: str, place: str, setting: str) -> str:
    """The prompt of a line of JSON."""

    def refuse(problem: str, expected: str) -> UserError:
        return UserError(
            f"{place} {problem}: {expected}", setting=setting, value=line, expected=expected
        )

    wanted = 'write a text, or an object with a text under "prompt" or "text"'
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON ({getattr(error, 'msg', error)})", wanted) from error
    if isinstance(row, dict):
        row = next((row[name] for name in _FIELDS if name in row), None)
    if not isinstance(row, str):
        raise refuse(f"holds no prompt ({line[:_MOST_SHOWN]})", wanted)
    try:
        row.encode("utf-8")
    except UnicodeEncodeError as error:
        raise refuse("holds half a character", "leave it out") from error
    return row


def _hash(positive: Sequence[str], negative: Sequence[str]) -> str:
    content = json.dumps([list(positive), list(negative)], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()
