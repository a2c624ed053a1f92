"""Normalised text: what stays the same when a text is copied, re-typed, re-wrapped, converted or disguised.

Words of scripts that write no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) cannot be told
apart without a dictionary, so every character of those scripts becomes a word of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fingerprint_dagster.media.text.confusables import CAPITAL_IMITATIONS, LATIN_IMITATIONS, folded

_UNSPACED_RANGES = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF)),  # ideographic marks, kana
    *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)),  # Han
)
UNSPACED = "".join(f"{chr(first)}-{chr(last)}" for first, last in _UNSPACED_RANGES)
"""The characters of scripts without spaces, as the inside of a regular expression's [...]."""

# Characters that change nothing in what is read: format controls (zero-width, bidirectional, soft hyphen, tags) and
# variation selectors, Hangul fillers, the Arabic stretcher, and the vowel points that Arabic and Hebrew may leave out.
_IGNORED = re.compile(
    "[\u00ad\u034f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u061c\u0640\u064b-\u0652\u0670\u115f\u1160\u17b4"
    "\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]+"
)
_MODIFIERS = re.compile("[\u02b9-\u02df\u02e5-\u02ff]")  # letters to Unicode, but read and typed as apostrophes
_LATIN = str.maketrans({letter: latin for latin, letters in LATIN_IMITATIONS.items() for letter in letters})
# One of those capitals beside a Latin letter. It comes first, because the search for fixed characters is fast.
_CAPITAL = re.compile(f"[{''.join(CAPITAL_IMITATIONS)}](?:(?<=[A-Za-z].)|(?=[A-Za-z]))")

# A word divided at the end of a line; the hyphen comes first for the same reason.
_DIVIDED = re.compile(r"[-\u2010\u00ad](?<=[^\W\d_].)[ \t]*\r?\n[ \t]*(?=[^\W\d_])")
_DIVIDED_ASCII = re.compile(rb"-(?<=[A-Za-z]-)[ \t]*\r?\n[ \t]*(?=[a-z])")
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")
_BLOCK_CHARACTERS = 1 << 20  # normalised at once: bounds the memory that a text of any length takes

_SPACE = 32
_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() else _SPACE for code in range(128)) + bytes(128)

# What _characters holds of a code point beside the one it becomes.
_UNKNOWN, _DROPPED, _SEVERAL = 0xFFFFFFFF, 0xFFFFFFFE, 0x80000000

Codes = npt.NDArray[np.uint32]
Offsets = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Normalized:
    """A normalised text and where each of its characters came from.

    text: words with one space between them, none at the ends.
    offsets: int32 [len(text) + 1], never falling. text[a:b] was made of original[offsets[a]:offsets[b]]; where
        text[b] is a space (or the end), that stops right behind the word, before the punctuation that follows it.
    """

    text: str
    offsets: Offsets

    def original(self, start: int, end: int) -> tuple[int, int]:
        """The range of the original text that `text[start:end]` was made of; never empty where start < end."""
        first, last = int(self.offsets[start]), int(self.offsets[end])
        return first, max(last, int(self.offsets[end - 1]) + 1) if start < end else last


def count_words(normalised: str) -> int:
    """How many words `normalize_v2` left."""
    return normalised.count(" ") + 1 if normalised else 0


def normalize_v2(text: str) -> Normalized:
    """`text` as words with one space between them, and their places; normalising again changes nothing.

    - Invisible characters are dropped: zero-width and bidirectional controls, soft hyphens, variation selectors.
    - Compatibility forms (ligatures, full-width letters, circled numbers) and case are folded: NFKD and case folding
      (Unicode Standard, section 3.13, by the tables of the running Python), composed again (NFC).
    - Diacritics of alphabets are dropped, and so are Arabic and Hebrew vowel points.
    - Letters that imitate Latin ones become those (`confusables.LATIN_IMITATIONS`), in real Greek and Russian, too.
    - A word divided by a hyphen at the end of a line is joined, unless its second part begins with a capital.
    - Punctuation and symbols, apostrophes and dashes included, become spaces.
    - Every character of a script without spaces becomes a word.
    """
    if text.isascii():
        return _ascii(text)
    texts: list[str] = []
    offsets: list[Offsets] = []
    for start, end in _blocks(text):
        block, places = _block(text[start:end])
        if not block:
            continue
        if texts:  # the last offset of the block before is that of this space
            texts.append(" ")
        texts.append(block)
        offsets.append(places + np.int32(start))
    if not texts:
        return Normalized("", np.array([len(text)], np.int32))
    return Normalized("".join(texts), np.concatenate(offsets))


def _ascii(text: str) -> Normalized:
    """`normalize_v2` of ASCII: one byte a character."""
    data = text.encode("ascii")
    codes = np.frombuffer(data.translate(_ASCII), np.uint8)
    kept = _kept(codes == _SPACE)
    for match in _DIVIDED_ASCII.finditer(data):
        kept[match.start() : match.end()] = False
    places = np.flatnonzero(kept)
    words = codes[places]
    return Normalized(*_trimmed(words.tobytes().decode("ascii"), places.astype(np.int32), len(text)))


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of pieces of `text`, cut at a space between two words."""
    start = 0
    while True:
        cut = _BETWEEN_WORDS.search(text, start + _BLOCK_CHARACTERS)
        if cut is None:
            yield start, len(text)
            return
        yield start, cut.start()
        start = cut.end()


def _block(text: str) -> tuple[str, Offsets]:
    """A normalised text and the offsets of its characters and of its end."""
    if any(map(text.__contains__, CAPITAL_IMITATIONS)):
        text = _CAPITAL.sub(lambda match: CAPITAL_IMITATIONS[match[0]], text)
    mapped = _characters.of(_codes(text))
    for match in _DIVIDED.finditer(text):
        if not text[match.end()].isupper():
            mapped[match.start() : match.end()] = _DROPPED
    places = np.flatnonzero(mapped != _DROPPED).astype(np.int32)
    mapped = mapped[places]
    if len(mapped) and mapped.max() >= _SEVERAL:
        mapped, places = _expanded(mapped, places)
    if len(mapped) and mapped.max() >= 0x300:  # no character below is a mark or stands in a script without spaces
        mapped, places = _composed(mapped, places)
        mapped, places = _spaced(mapped, places)
    kept = _kept(mapped == _SPACE)
    return _trimmed(_text(mapped[kept]), places[kept], len(text))


def _kept(spaces: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """All but the spaces that follow another space or begin the text."""
    kept = ~spaces
    kept[1:] |= kept[:-1]
    return kept


def _trimmed(text: str, places: Offsets, end: int) -> tuple[str, Offsets]:
    """Without a space at the end, and with the offset of the end."""
    if text.endswith(" "):
        return text[:-1], places
    return text, np.append(places, np.int32(end))


class _Characters:
    """What each code point becomes by itself, worked out when it is first met."""

    def __init__(self) -> None:
        self._becomes = np.full(0x110000, _UNKNOWN, np.uint32)
        self.several: dict[int, str] = {}  # _SEVERAL | code point -> what it becomes, where that is not one character
        self.joins = np.zeros(0x110000, np.bool_)  # those that may join the character before, as marks do
        self.unspaced = np.zeros(0x110000, np.bool_)
        for first, last in _UNSPACED_RANGES:
            self.unspaced[first : last + 1] = True

    def of(self, codes: Codes) -> Codes:
        """What each of `codes` becomes: one code point, _DROPPED, or a key of `several`."""
        mapped = self._becomes[codes]
        unknown = mapped == _UNKNOWN
        if unknown.any():
            for code in set(codes[unknown].tolist()):
                self._learn(code)
            mapped = self._becomes[codes]
        return mapped

    def _learn(self, code: int) -> None:
        text = unicodedata.normalize("NFC", folded(_IGNORED.sub("", chr(code))).translate(_LATIN))
        kept = "".join(character if _is_word(character) else " " for character in _IGNORED.sub("", text))
        for character in kept:
            self.joins[ord(character)] = _joins(character)
        if len(kept) > 1:
            self.several[_SEVERAL | code] = kept
            self._becomes[code] = _SEVERAL | code
        else:
            self._becomes[code] = ord(kept) if kept else _DROPPED


def _is_word(character: str) -> bool:
    """Whether it is a letter, a number, or a mark that belongs to one."""
    return unicodedata.category(character)[0] in "LNM" and not _MODIFIERS.match(character)


def _joins(character: str) -> bool:
    """Whether it may become one with the character before it: a mark, or a Korean vowel or final consonant."""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"


_characters = _Characters()


def _codes(text: str) -> Codes:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _text(codes: Codes) -> str:
    return codes.astype("<u4", copy=False).tobytes().decode("utf-32-le")


def _expanded(mapped: Codes, places: Offsets) -> tuple[Codes, Offsets]:
    """With the characters that become several replaced by those."""
    wanted = np.unique(mapped[mapped >= _SEVERAL]).tolist()
    counts = np.ones(len(mapped), np.intp)
    for code in wanted:
        counts[mapped == code] = len(_characters.several[code])
    starts = np.cumsum(counts) - counts
    expanded = np.repeat(mapped, counts)
    for code in wanted:
        for place, character in enumerate(_characters.several[code]):
            expanded[starts[mapped == code] + place] = ord(character)
    return expanded, np.repeat(places, counts)


def _composed(mapped: Codes, places: Offsets) -> tuple[Codes, Offsets]:
    """With marks in their canonical order and one with their letter where Unicode has it (NFC)."""
    if unicodedata.is_normalized("NFC", _text(mapped)):
        return mapped, places
    # Cut before each letter that has marks and behind its marks; the pieces are composed at once, zeros between them.
    joins = np.concatenate([[False], _characters.joins[mapped], [False]])
    cuts = np.flatnonzero(joins[1:] != joins[:-1])
    cuts[::2] = np.maximum(0, cuts[::2] - 1)
    composed = _codes(unicodedata.normalize("NFC", _text(np.insert(mapped, cuts, 0))))
    zeros = np.flatnonzero(composed == 0)
    lengths = np.diff(zeros, prepend=-1, append=len(composed)) - 1
    starts = np.concatenate([[0], cuts])
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.delete(composed, zeros), places[np.repeat(starts, lengths) + within]


def _spaced(mapped: Codes, places: Offsets) -> tuple[Codes, Offsets]:
    """With a space on both sides of each character of a script without spaces."""
    unspaced = _characters.unspaced[mapped]
    if not unspaced.any():
        return mapped, places
    before = np.concatenate([[False], unspaced[1:] | unspaced[:-1]])
    counts = 1 + before
    spaced, offsets = np.repeat(mapped, counts), np.repeat(places, counts)
    spaced[(np.cumsum(counts) - counts)[before]] = _SPACE
    return spaced, offsets
