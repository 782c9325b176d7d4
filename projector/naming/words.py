"""Tokens as words: spellings that differ in a leading space or in capitals are the same word."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from torch import Tensor

from projector.corpus.pieces import Pieces, readable

# No token: before the first of a sequence, or where a neuron has fewer examples.
NONE = -1
_MOST_SIGNS = 20
# A repeated sign is written once with its count from here on.
_MOST_REPEATED = 4
_BLANKS = {"␣": "space", "⏎": "new line", "⇥": "tab"}
_BLANKS_IN_A_ROW = re.compile(rf"([␣⏎⇥])\1{{{_MOST_REPEATED},}}")
CAPITALS, CAPITALISED, NUMBERS = "CAPITALS", "Capitalised", "numbers"
KINDS = (CAPITALS, CAPITALISED, NUMBERS)


def word_of(text: str) -> str:
    """The common form of a token's spellings: lower case, without surrounding spaces.

    All tokens of blank lines are one word, and so are all tokens of spaces only.
    """
    bare = text.strip(" ")
    if not bare:
        return " "
    if bare.isspace():
        return "\n" if "\n" in bare or "\r" in bare else bare[0]
    return bare.casefold()


def kind_of(text: str) -> str | None:
    """The kind of a token: ``CAPITALS``, ``Capitalised``, ``numbers``; None for every other
    token.
    """
    bare = text.strip(" ")
    if bare.isdecimal():
        return NUMBERS
    if not bare.isalpha():
        return None
    if len(bare) > 1 and bare.isupper():
        return CAPITALS
    return CAPITALISED if len(bare) > 1 and bare.istitle() else None


def shown(text: str, most: int = _MOST_SIGNS) -> str:
    """A token's text in a label: without surrounding spaces, with symbols for invisible characters,
    and shortened.
    """
    bare = text.strip(" ") or text
    if len(bare) > _MOST_REPEATED and len(set(bare)) == 1:
        return f"{readable(bare[0])}×{len(bare)}"
    found = readable(bare)
    return found if len(found) <= most else f"{found[: most - 1]}…"


def compact(text: str) -> str:
    """A token's full text on one line with its spaces; repeated blanks as ``␣×12``."""
    return _BLANKS_IN_A_ROW.sub(lambda run: f"{run[1]}×{len(run[0])}", readable(text)) or "∅"


def sign_and_name(text: str) -> str:
    """A token's text in a label; blank tokens by symbol and name, such as ``␣ space``."""
    found = shown(text)
    return f"{found} {_BLANKS[found]}" if found in _BLANKS else found


class Words:
    """Numbers of words for token ids: the same number for ids that spell the same word."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self._number_of: dict[str, int] = {}
        # Threads that meet new words at once give them numbers of their own.
        self._next = count()
        self._known: dict[int, int] = {}
        self._kinds: dict[int, int] = {}
        self._frequencies: dict[tuple[int, int], Frequencies] = {}

    def numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The word of each id, in any shape; :data:`NONE` is kept."""
        return self._mapped(ids, self._number)

    def kinds(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The kind of each id, as a number; :data:`NONE` for ids without a kind."""
        return self._mapped(ids, self._kind)

    @staticmethod
    def kind_name(number: int) -> str:
        """The name of a kind's number."""
        return KINDS[number]

    def _mapped(self, ids: NDArray[np.int64], of: Callable[[int], int]) -> NDArray[np.int64]:
        unique, inverse = np.unique(ids, return_inverse=True)
        found = [NONE if i < 0 else of(i) for i in unique.tolist()]
        return np.array(found, dtype=np.int64)[inverse].reshape(ids.shape)

    def _number(self, token: int) -> int:
        known = self._known.get(token)
        if known is None:
            word = word_of(self.pieces.text(token))
            known = self._number_of.setdefault(word, next(self._next))
            self._known[token] = known
        return known

    def _kind(self, token: int) -> int:
        known = self._kinds.get(token)
        if known is None:
            kind = kind_of(self.pieces.text(token))
            known = NONE if kind is None else KINDS.index(kind)
            self._kinds[token] = known
        return known

    def frequencies(self, ids: Tensor) -> Frequencies:
        """Count the words of a corpus.

        Args:
            ids: (T,) token ids of the corpus.
        """
        plain = ids.numpy()
        key = (len(plain), zlib.crc32(np.ascontiguousarray(plain).data))
        found = self._frequencies.get(key)
        if found is None:
            # One corpus is looked at, or two beside each other.
            if len(self._frequencies) > 1:
                self._frequencies.pop(next(iter(self._frequencies)), None)
            unique, counts = np.unique(plain.astype(np.int64), return_counts=True)
            of_word = np.bincount(self.numbers(unique), counts)
            found = self._frequencies[key] = Frequencies(of_word / max(1, len(plain)))
        return found


class Frequencies:
    """Word frequencies, and the probability that random tokens of a corpus agree.

    Args:
        shares: (W,), each word's share of the corpus's tokens, by the word's number.
    """

    def __init__(self, shares: NDArray[np.float64]) -> None:
        self._ranked = np.sort(shares[shares > 0])
        self._shares = shares
        self._tables: dict[tuple[int, int], NDArray[np.float64]] = {}

    def by_chance(self, word: int, n_agreeing: int, n_drawn: int) -> float:
        """Probability that at least ``n_agreeing`` of ``n_drawn`` random tokens of the corpus agree
        on a word that is at most as frequent as this one.

        It is the sum of binomial tails over these words, which is a slight overestimate.
        """
        key = (n_agreeing, n_drawn)
        if key not in self._tables:
            tails = betainc(n_agreeing, n_drawn - n_agreeing + 1, self._ranked)
            self._tables[key] = np.cumsum(tails)
        share = self._shares[word] if word < len(self._shares) else 0.0
        upto = int(np.searchsorted(self._ranked, share, side="right"))
        return float(min(1.0, self._tables[key][max(0, upto - 1)])) if len(self._ranked) else 1.0


@lru_cache(maxsize=4)
def words_of(pieces: Pieces) -> Words:
    """The words of some pieces, cached."""
    return Words(pieces)


def listed(texts: Sequence[str], most: int, prefix: str = "") -> str:
    """Join as many texts as fit into ``most`` characters. They are separated by points, because a
    text may be a comma.
    """
    text = prefix
    between = " · "
    for k, each in enumerate(texts):
        more = f"{text}{between if k else ''}{each}"
        if k and len(more) > most:
            break
        text = more
    return text if len(text) <= most else f"{text[: most - 1]}…"


_SPACES = re.compile(r" {2,}")


def on_one_line(texts: Sequence[str], focus: int) -> str:
    """Tokens in context as one line, with the relevant token in «»; an indent is one space."""
    found = [readable(text, running=True) for text in texts]
    space = " " if texts[focus].startswith(" ") else ""
    found[focus] = f"{space}«{shown(texts[focus], 2 * _MOST_SIGNS)}»"
    return _SPACES.sub(" ", "".join(found).replace("\n", "").replace("\t", " ")).strip(" ")
