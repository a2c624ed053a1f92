"""Letters of one alphabet that look like letters of another: what a homoglyph attack replaces.

The table comes from `confusables.txt` of Unicode Technical Standard #39, version 17.0.0
(https://www.unicode.org/Public/security/; © 2025 Unicode, Inc., Unicode License v3,
https://www.unicode.org/license.txt), restricted to letters that look like one of a to z. To make it anew:

    python -m fingerprint_dagster.media.text.confusables confusables.txt
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

LATIN_IMITATIONS = {
    "a": "ɑαаᎪᗅꓮ",
    "b": "ƀƃƅɓβвьᏏᏴᑲᖯᗷⲃꓐꞵ",
    "c": "ȼсᏟᴄⲥꓚ",
    "d": "ðđƌɖɗԁᎠᏧᑯᗞᗪꓒꓓ",
    "e": "ɇεеҽᎬꓰꬲ",
    "f": "ƒϝքᖴᵮẝꓝꞙꬵ",
    "g": "ƍǥɠɡԍցᏀᏳᶃꓖ",
    "h": "ħɦнңһհᎻᏂᕼⱨⲏꓧ",
    "i": "ıɨɩɪιіւᎥᵻᵼⲓⳑꙇ",
    "j": "ɉʝϳјᎫᒍꓙ",
    "k": "ƙκкқᏦⱪⲕꓗꝁ",
    "l": "łƚǀɫɭӏᏞᒪꓡꓲ",
    "m": "μϻмᎷᗰⲙꓟ",
    "n": "ŋƞɲɳηղոռᵰⲛꓠ",
    "o": "øɵοσϭоօᴏᴑⲟꓳꝋꬽꬾ",
    "p": "þƥƿρϸрᏢᑭᵽⲣⳏꓑ",
    "q": "ʠԛգզ",
    "r": "ɍɼɽʀгᎡᏒᖇᴦᵲⲅꓣꭇꭈ",
    "s": "ƽʂѕտᏕᏚᵴꓢꜱ",
    "t": "ŧƭʈτтҭᎢᵵⱦⲧꓔ",
    "u": "ʉʋυџսᑌᴜᵾꓴꞟꭎꭒ",
    "v": "νѵᏙᐯᴠꓦ",
    "w": "ɯшѡԝաᎳᏔᴡⲽꓪꝡ",
    "x": "χхҳᕁᕽⲭꓫꭓ",
    "y": "ƴɏɣʏγуүᎩᎽᶌỿⲩꓬꭚ",
    "z": "ƶȥʐζᏃᴢᵶꓜ",
}
"""Letter of a to z -> the letters, case-folded and without diacritics, that look like it or its capital.

Russian and Greek words change, too (`вот` becomes `bot`), but always in the same way, so their copies are still found.
"""

CAPITAL_IMITATIONS = {"Ν": "N", "Η": "H", "Υ": "Y"}
"""The Greek capitals that look like another Latin letter than their small forms (ν like v, but Ν like N)."""

# Alphabets whose letters stand in for Latin ones. Scripts that are written from right to left, or whose letters would
# not pass in a Latin word, gain nothing and would lose distinctions of their own.
_SCRIPTS = ("LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "CANADIAN", "CHEROKEE", "COPTIC", "LISU")
# Diacritics that are drawn on any letter: dropped, so that `cafe`, `café` and a letter under a pile of marks agree.
_DIACRITICS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_DESCENDER = "\u0329"  # η is said to look like an n with a vertical line below


def folded(text: str) -> str:
    """`text` decomposed (NFKD), case-folded and without the diacritics of alphabets."""
    bare = _DIACRITICS.sub("", unicodedata.normalize("NFKD", text))
    return _DIACRITICS.sub("", unicodedata.normalize("NFKD", bare.casefold()))


def imitations(confusables: str) -> dict[str, str]:
    """The table `LATIN_IMITATIONS`, from the text of `confusables.txt`.

    A small letter counts for what it looks like itself, else for what its capital looks like.
    """
    looks = dict(_entries(confusables))

    def imitated(letter: str) -> str:
        look = looks.get(letter, letter).replace(_DESCENDER, "")
        if unicodedata.name(letter).startswith("LATIN"):  # `ł` looks like an `l` with a stroke: the stroke goes
            look = folded(look)
        look = look.casefold()
        return look if len(look) == 1 and "a" <= look <= "z" else ""

    table: dict[str, str] = {}
    for letter in map(chr, range(0x80, 0x110000)):
        if not unicodedata.category(letter).startswith("L") or folded(letter) != letter:
            continue
        if not unicodedata.name(letter, "").startswith(_SCRIPTS):
            continue
        capital = letter.upper()
        look = imitated(letter) or (len(capital) == 1 and imitated(capital).replace("l", "i"))  # I looks like l
        if look:
            table[look] = table.get(look, "") + letter
    return dict(sorted(table.items()))


def _entries(confusables: str) -> Iterator[tuple[str, str]]:
    """Each character of the file and what it looks like."""
    for line in confusables.splitlines():
        fields = line.partition("#")[0].split(";")
        if len(fields) > 1:
            source, target = ("".join(chr(int(code, 16)) for code in field.split()) for field in fields[:2])
            yield source, target


if __name__ == "__main__":
    import sys

    for letter, looking in imitations(Path(sys.argv[1]).read_text(encoding="utf-8-sig")).items():
        sys.stdout.write(f'    "{letter}": "{looking}",\n')
