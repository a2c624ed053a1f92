import random
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.media.text import normalize
from fingerprint_dagster.media.text.confusables import CAPITAL_IMITATIONS, LATIN_IMITATIONS, folded, imitations
from fingerprint_dagster.media.text.normalize import count_words, normalize_v2

ENGLISH = (
    "It's the quick, brown fox \u2013 quite \u201cjumpy\u201d \u2013 that leaps over Nobody's lazy dogs in New York. "
)
TEXTS = {
    "English": ENGLISH,
    "German": "Während die Bäckerei früh öffnet, übt die Schülerin für ihre Prüfung; die Straße ist naß und groß. ",
    "Greek": "Ναι, η Υδρόγειος είναι μία σφαίρα. Ο Νίκος και η Ηλέκτρα το ήξεραν από χθες. ",
    "Russian": "Утром мальчик вышел из дома и увидел на дороге старую лошадь; объём её ноши был велик. ",
    "Hindi": "कल हम सब लोग नदी के किनारे घूमने गए थे और वहाँ बहुत अच्छा लगा। ",
    "Arabic": "ذَهَبْنا أَمْسِ إلى السوق القديم، ثمّ عدنا إلى البيت قبل الغروب. ",
    "Japanese": "昨日は友達と一緒に山へ登りました。ビルがとても高くて、パンを食べました。",
    "Thai": "เมื่อวานนี้ฉันไปตลาดกับแม่เพื่อซื้อผลไม้และดอกไม้",
    "Korean": "어제 저녁에 우리 가족은 강가를 따라 오래 걸었습니다. ",
}
# What any text is made of: letters of all kinds, marks, invisible characters, line ends, and any other character.
CHARACTERS = st.one_of(
    st.sampled_from(
        "abcXYZ019 '’-\n\r\t.,ßﬁ½ŉéÅİıæΝνΗΥσςвьёйІӏ\u0301\u0308\u0345\u0327字ガｶﾞ゙กำ한\u1112\u1161\u11abकी़्آا\u0653"
    ),
    st.sampled_from("\u00ad\u200b\u200d\u202e\u2066\ufeff\ufe0f\u3000\u00a0\u2010\u2028"),
    st.characters(),
)
ANY_TEXT = st.text(CHARACTERS, max_size=60)


def normalised(text):
    return normalize_v2(text).text


# --- what a copy may change


def test_case_spaces_and_punctuation_are_normalised_away():
    assert normalised("  The ﬁrst\u00a0Straße,\n“don’t”—\u200bＷａｉｔ\u2009…  ") == "the first strasse don t wait"
    assert normalised("It's «so» – isn't it?") == normalised('It\u02bcs "so" - isn\u00b4t it!')
    assert normalised("Ⅷ ② m² 10 ½ ™") == "viii 2 m2 10 1 2 tm"
    assert normalised("!?") == normalised("") == ""
    assert (count_words(""), count_words("one"), count_words("one two")) == (0, 1, 2)


def test_diacritics_and_vowel_points_are_normalised_away():
    assert normalised("Cafe\u0301 CAFÉ Ångström Łódź") == "cafe cafe angstrom lodz"
    assert normalised("z\u0300\u0301\u0302\u0340a\u0489l\u20ddg\u1ab0o") == "zalgo"
    assert normalised("شَدّة") == normalised("شدة")
    assert normalised("שָׁלוֹם") == normalised("שלום")
    assert normalised("हिन्दी में") == "हिन्दी में"  # the vowels of other scripts are no such marks


def test_scripts_without_spaces_are_split_into_characters():
    assert normalised("春天来了。OK") == "春 天 来 了 ok"
    assert normalised("ｶﾞｽ") == "ガ ス"
    assert count_words(normalised("한국어 단어")) == 2
    assert count_words(normalised("ไทย")) == 3


def test_words_divided_at_a_line_end_are_joined():
    assert normalised("co-\noperate, Ge-  \r\n\tmüse, so\u00ad\nft, ein\u2010\nmal") == "cooperate gemuse soft einmal"
    assert normalised("Jean-\nLuc - \nthen 10-\n12 -\nx") == "jean luc then 10 12 x"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_composed_and_decomposed_texts_agree(text):
    assert {normalised(unicodedata.normalize(form, text)) for form in ("NFC", "NFD", "NFKC", "NFKD")} == {
        normalised(text)
    }


# --- attacks


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "characters", ["\u200b\u200c\u200d\u2060\ufeff", "\u202a\u202e\u202c\u2066\u2069", "\u00ad\ufe0f"]
)
def test_invisible_characters_change_nothing(text, characters):
    rng = random.Random(1)
    attacked = "".join(character + rng.choice(characters) for character in text)
    assert normalised(attacked) == normalised(text)


def test_homoglyphs_change_nothing():
    clean = normalised(ENGLISH * 20)
    for share in (0.05, 0.5, 1):
        rng = random.Random(2)
        attacked = "".join(
            rng.choice(LATIN_IMITATIONS[letter]) if letter in LATIN_IMITATIONS and rng.random() < share else letter
            for letter in ENGLISH * 20
        )
        assert normalised(attacked) == clean
    capitals = str.maketrans("ABCEHIJKMNOPSTXYZ", "АВСЕНІЈКМΝОРЅТХΥΖ")
    assert normalised((ENGLISH * 20).translate(capitals)) == clean


@pytest.mark.parametrize("language", ["Greek", "Russian"])
def test_real_words_of_other_alphabets_agree_in_any_case_and_stay_distinct(language):
    text = TEXTS[language]
    assert normalised(text.upper()) == normalised(text.lower()) == normalised(text)
    words = set(re.findall(r"\w+", text.lower()))
    assert len({normalised(word) for word in words}) == len(words)
    latin = str.maketrans("оаесрхуαορ", "oaecpxyaop")  # and Latin letters that imitate theirs
    assert normalised(text.lower().translate(latin)) == normalised(text)


def test_the_table_of_imitations_is_made_from_the_data_of_unicode():
    data = """\ufeff# confusables.txt
0441 ;\t0063 ;\tMA\t# ( с → c ) CYRILLIC SMALL LETTER ES → LATIN SMALL LETTER C\t#
041C ;\t004D ;\tMA\t# ( М → M ) CYRILLIC CAPITAL LETTER EM → LATIN CAPITAL LETTER M\t#
0406 ;\t006C ;\tMA\t# ( І → l ) CYRILLIC CAPITAL LETTER BYELORUSSIAN-UKRAINIAN I → LATIN SMALL LETTER L\t#
03B7 ;\t006E 0329 ;\tMA\t# ( η → n̩ ) GREEK SMALL LETTER ETA → LATIN SMALL LETTER N, COMBINING VERTICAL LINE BELOW
0142 ;\t006C 0337 ;\tMA\t# ( ł → l̷ ) LATIN SMALL LETTER L WITH STROKE → LATIN SMALL LETTER L, COMBINING OVERLAY
05D5 ;\t006C ;\tMA\t# ( ו → l ) HEBREW LETTER VAV → LATIN SMALL LETTER L
"""
    assert imitations(data) == {"c": "с", "i": "ıі", "l": "ł", "m": "м", "n": "η"}


def test_imitations_are_folded_letters_and_none_stands_for_two():
    letters = "".join(LATIN_IMITATIONS.values())
    assert len(set(letters)) == len(letters)
    assert all(folded(letter) == letter and letter.isalpha() and not letter.isascii() for letter in letters)
    assert all(folded(capital) in letters for capital in CAPITAL_IMITATIONS)


# --- for any text


@given(ANY_TEXT)
@settings(max_examples=500)
def test_normalising_twice_changes_nothing(text):
    once = normalised(text)
    assert normalised(once) == once
    assert once == " ".join(once.split())


@given(ANY_TEXT)
@settings(max_examples=500)
def test_every_character_knows_its_place(text):
    found = normalize_v2(text)
    assert (found.offsets.dtype, found.offsets.shape) == (np.int32, (len(found.text) + 1,))
    assert (np.diff(found.offsets) >= 0).all()
    assert 0 <= found.offsets[0] <= found.offsets[-1] <= len(text)


@given(ANY_TEXT, st.data())
@settings(max_examples=500)
def test_the_place_of_words_in_the_original_holds_those_words(text, data):
    found = normalize_v2(text)
    edges = [0, *(match.start() for match in re.finditer(" ", found.text)), len(found.text)]
    start, end = sorted(data.draw(st.tuples(st.sampled_from(edges), st.sampled_from(edges))))
    words = found.text[start:end].strip()
    if words:
        start += found.text[start] == " "
        first, last = found.original(start, end)
        assert f" {words} " in f" {normalised(text[first:last])} "
        if not any(" " in normalised(character) for character in text[first:last]):  # ½ is two words at one place
            assert normalised(text[first:last]) == words


@given(ANY_TEXT)
def test_blocks_do_not_show(text):
    whole = normalize_v2(text)
    before = normalize._BLOCK_CHARACTERS
    try:
        for size in (1, 7):
            normalize._BLOCK_CHARACTERS = size
            blocks = normalize_v2(text)
            assert blocks.text == whole.text
            assert blocks.offsets.tolist() == whole.offsets.tolist()
    finally:
        normalize._BLOCK_CHARACTERS = before


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_ascii_is_normalised_like_any_other_text(text):
    short, other = normalize_v2(text), normalize_v2(text + "; \u0142")
    assert f"{short.text} l".strip() == other.text
    assert short.offsets[:-1].tolist() == other.offsets[: len(short.text)].tolist()
