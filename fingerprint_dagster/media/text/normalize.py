"""Normalised text: what stays the same when a text is copied, re-typed, re-wrapped or converted.

Words of scripts that write no spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) cannot be told
apart without a dictionary, so every character of those scripts becomes a word of its own.
"""

from __future__ import annotations

import re
import unicodedata

UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # ideographic marks, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""The characters of scripts without spaces, as the inside of a regular expression's [...]."""

# Invisible characters that carry no text: format controls (zero-width, bidirectional, soft hyphen, byte-order mark,
# tags), the combining grapheme joiner, variation selectors.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff]+"
)
_UNSPACED = re.compile(f"[{UNSPACED}]")
_SPACES = re.compile(" {2,}")


class _Characters(dict[int, str]):
    """code point -> what it becomes, worked out when first met: `str.translate` asks for each character of a text."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character)[0] not in "LNM":  # letters, numbers, and the marks that belong to them
            kept = " "
        elif _UNSPACED.match(character):
            kept = f" {character} "
        else:
            kept = character
        self[code] = kept
        return kept


_CHARACTERS = _Characters()


def normalize_v1(text: str) -> str:
    """`text` as words with one space between them; normalising again changes nothing.

    Invisible characters are dropped; compatibility forms (ligatures, full-width letters, circled numbers) and
    case are folded (NFKC and case folding, Unicode Standard section 3.13, by the tables of the running Python);
    punctuation and symbols become spaces; every character of a script without spaces becomes a word.
    """
    text = _INVISIBLE.sub("", text)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _SPACES.sub(" ", text.translate(_CHARACTERS)).strip()


def count_words(normalised: str) -> int:
    """How many words `normalize_v1` left."""
    return normalised.count(" ") + 1 if normalised else 0
