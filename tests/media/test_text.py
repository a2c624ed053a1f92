import random
import re
from importlib.metadata import distributions
from pathlib import Path

import iscc_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from writings import CHINESE, GERMAN, JAPANESE, KOREAN, RUSSIAN

from fingerprint_dagster.codec import decode as decode_value
from fingerprint_dagster.codec import encode, sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.media.text import TextPlugin, semantic
from fingerprint_dagster.media.text.match import CONTAINMENT, MIN_DISTINCT, SIMILARITY
from fingerprint_dagster.media.text.minhash import MINHASH
from fingerprint_dagster.media.text.semantic import SEMANTIC, semantic_v1, semantic_version
from fingerprint_dagster.media.text.winnowing import WINNOWING
from fingerprint_dagster.media.text.words import WORDS
from fingerprint_dagster.search import find_copies, verify
from fingerprint_dagster.settings import get_settings

PLUGIN = TextPlugin()
SAMPLES = {path.name: path for path in iscc_samples.texts()}

THAI = "เมื่อวานนี้ฉันไปตลาดกับแม่เพื่อซื้อผลไม้และดอกไม้สำหรับงานวันเกิดของยาย ตอนเย็นทุกคนช่วยกันทำอาหารและร้องเพลงอย่างมีความสุข"
LANGUAGES = {"de": GERMAN, "ru": RUSSIAN, "ja": JAPANESE, "zh": CHINESE, "ko": KOREAN, "th": THAI}
VOCABULARY = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("lin", "ker", "to", "vas", "mer", "")]


def sketch_of(text, embedded=Value(), plugin=PLUGIN):  # noqa: B008
    decoded = Value(
        {"text": np.frombuffer(text.encode(), np.uint8)},
        {"characters": len(text), "encoding": "utf-8", "media": "text/plain"},
    )
    # As it travels between two stages.
    return value_to_sketch(decode_value(encode(sketch_to_value(plugin.hash(decoded, embedded)))))


def fingerprint_of(text, name="q", embedded=Value(), plugin=PLUGIN):  # noqa: B008
    content = Content(name, f"file:///{name}", "text")
    return Fingerprint(content, name, 0, "text/plain", "", sketch_of(text, embedded, plugin))


def written(rng, count):
    """A text of `count` words, as nobody else would write it, with punctuation and lines."""
    return "".join(rng.choice(VOCABULARY) + rng.choice((" ", " ", " ", " ", ", ", ".\n")) for _ in range(count)).strip()


def edited(text, rng, share):
    """With that share of the words replaced, left out or doubled by another."""
    words = []
    for word in text.split():
        kind = rng.randrange(3) if rng.random() < share else 3
        words += [[], [rng.choice(VOCABULARY)], [word, rng.choice(VOCABULARY)], [word]][kind]
    return " ".join(words)


def part(text, range_):
    return text[int(range_[0]) : int(range_[1])]


# --- whole texts


@pytest.mark.parametrize(("share", "least"), [(0, 1), (0.05, 0.9), (0.15, 0.75), (0.3, 0.55)])
def test_an_edited_copy_matches_as_a_whole(share, least):
    rng = random.Random(1)
    for length in (300, 1000, 5000):
        original = written(rng, length)
        changed = edited(original, rng, share)
        [found] = verify(PLUGIN, fingerprint_of(changed), fingerprint_of(original, "r"))
        assert (found.reference.content_id, found.evidence) == ("r", SIMILARITY)
        assert least <= found.score <= 1
        assert found.confidence >= 0.9
        for text, range_ in ((changed, found.query_range), (original, found.reference_range)):
            assert len(part(text, range_)) >= 0.95 * len(text) - 60


def test_a_nearly_equal_text_of_few_different_words_is_a_sure_copy():
    rng = random.Random(13)
    words = rng.sample(written(rng, 400).split(), 55)
    original = [rng.choice(words) for _ in range(250)]
    changed = [*original[:120], "another", *original[121:200], "two", *original[201:]]
    [found] = verify(PLUGIN, fingerprint_of(" ".join(changed)), fingerprint_of(" ".join(original)))
    assert found.score > 0.98
    assert found.strength < 60
    assert found.confidence > 0.999


def test_another_text_does_not_match():
    rng = random.Random(2)
    texts = [written(rng, length) for length in (20, 200, 2000)]
    texts += [SAMPLES["demo.txt"].read_text(encoding="utf-8"), SAMPLES["demo.md"].read_text(encoding="utf-8")]
    fingerprints = [fingerprint_of(text) for text in texts + list(LANGUAGES.values())]
    for one in fingerprints:
        for other in fingerprints:
            assert bool(PLUGIN.match(one, other)) == (one is other)
    assert PLUGIN.match(Fingerprint(one.content, "", 0, "", "", Sketch(())), one) == []


def test_paragraphs_in_another_order_are_one_match_and_several_passages():
    rng = random.Random(3)
    paragraphs = [written(rng, 60) for _ in range(8)]
    original, shuffled = "\n\n".join(paragraphs), "\n\n".join(paragraphs[4:] + paragraphs[:4])
    whole, *passages = PLUGIN.match(fingerprint_of(shuffled), fingerprint_of(original))
    assert whole.evidence == SIMILARITY
    assert whole.score == 1
    assert whole.details == {"words": 480, "passages": 2}
    assert {passage.evidence for passage in passages} == {CONTAINMENT}
    found = {part(shuffled, passage.query_range) for passage in passages}
    assert found == {"\n\n".join(half).rstrip(",.\n ") for half in (paragraphs[4:], paragraphs[:4])}


@pytest.mark.parametrize("text", ["Hello", "Hello, world", "字", "A line of seven words, for example."])
def test_short_texts_match_when_they_are_nearly_the_same(text):
    [found] = verify(PLUGIN, fingerprint_of(text), fingerprint_of(text.upper() + "!"))
    assert found.score == 1
    assert found.confidence <= 0.5
    assert sketch_of(text).info["low_information"]
    assert PLUGIN.match(fingerprint_of(text), fingerprint_of("Something else than that")) == []


def test_texts_that_repeat_themselves_match_by_their_signature():
    text = "the same three words, " * 200
    [found] = PLUGIN.match(fingerprint_of(text), fingerprint_of(text + "and an end"))
    assert found.evidence == MINHASH
    assert found.score >= 0.5


# --- passages


@pytest.mark.parametrize("length", [50, 200, 1000])
def test_a_quoted_passage_is_found_with_its_ranges(length):
    rng = random.Random(4)
    source, around = written(rng, 2500), written(rng, 1500)
    words = [match.start() for match in re.finditer(r"\w+", source)]
    start, end = words[700], re.compile(r"\w+").match(source, words[700 + length - 1]).end()
    cut = around.index(" ", 4000)
    query = f"{around[:cut]} »{source[start:end]}«{around[cut:]}"
    [found] = PLUGIN.match(fingerprint_of(query), fingerprint_of(source))
    assert part(query, found.query_range) == source[start:end]
    assert part(source, found.reference_range) == source[start:end]
    assert found.evidence == CONTAINMENT
    assert found.details["words"] == length
    assert found.score == pytest.approx(length / min(1500 + length, 2500), abs=0.001)


def test_several_passages_of_one_text_are_several_matches():
    rng = random.Random(5)
    source, around = [written(rng, 150) for _ in range(9)], [written(rng, 400) for _ in range(4)]
    query = "\n\n".join([around[0], source[7], around[1], source[1], around[2], source[4], around[3]])
    found = PLUGIN.match(fingerprint_of(query), fingerprint_of("\n\n".join(source)))
    assert {part(query, match.query_range) for match in found} == {
        source[number].rstrip(",.\n ") for number in (7, 1, 4)
    }
    assert [match.evidence for match in found] == [CONTAINMENT] * 3


@pytest.mark.parametrize("language", ["ja", "zh", "th"])
def test_passages_in_scripts_without_spaces(language):
    rng = random.Random(6)
    others = "".join(rng.choice(CHINESE + JAPANESE + THAI) for _ in range(800))
    passage = LANGUAGES[language].rstrip("。")
    query = others[:300] + "\n" + passage + "\n" + others[300:]
    matches = PLUGIN.match(fingerprint_of(query), fingerprint_of(passage + others[::-1][:200]))
    assert part(query, matches[0].query_range) == passage


def test_positions_are_those_of_the_original_text():
    """White space, capitals, invisible characters and ligatures around the passage move nothing."""
    rng = random.Random(7)
    passage = written(rng, 80)
    query = f"ﬁrst\u200b \n\n\t Äußerst   weit… {written(rng, 300)}\n\n---\n  {passage.upper()}\n\n{written(rng, 300)}"
    [found] = PLUGIN.match(fingerprint_of(query), fingerprint_of(written(rng, 400) + "\n" + passage))
    assert part(query, found.query_range) == passage.upper().rstrip(",.")


@pytest.mark.parametrize("disguise", ["homoglyphs", "zero width", "soft hyphens"])
def test_disguised_copies_are_found(disguise):
    rng = random.Random(8)
    original = written(rng, 300)
    if disguise == "homoglyphs":
        changed = original.translate(str.maketrans("aeopc", "аеорс"))
    else:
        changed = ("\u200b" if disguise == "zero width" else "\u00ad").join(original)
    [found] = PLUGIN.match(fingerprint_of(changed), fingerprint_of(original))
    assert found.score == 1
    assert part(changed, found.query_range) == changed.rstrip(",.")


# --- what everybody has


def licence(name):
    """A licence text among the installed packages."""
    for distribution in distributions():
        for file in distribution.files or ():
            path = Path(str(file.locate()))
            if re.match(r"licen[cs]e", file.name, re.IGNORECASE) and path.is_file():
                text = path.read_text(encoding="utf-8", errors="replace")
                if name in text[:200] and len(text) > 9000:
                    return text
    return pytest.skip(f"no installed package has the {name}")


def test_a_licence_in_two_texts_makes_no_copy_of_them():
    rng = random.Random(9)
    text = licence("Apache License")
    one, other = (fingerprint_of(f"{written(rng, 3000)}\n{text}") for _ in range(2))
    assert PLUGIN.match(one, other) == []


def test_a_licence_by_itself_matches_as_any_text():
    rng = random.Random(10)
    text = licence("Apache License")
    [found] = PLUGIN.match(fingerprint_of(edited(text, rng, 0.05)), fingerprint_of(text))
    assert found.evidence == SIMILARITY
    assert found.score >= 0.85


def test_what_a_user_calls_boilerplate_makes_no_copy_either(tmp_path, monkeypatch):
    rng = random.Random(11)
    notice = written(rng, 150)
    one, other = (f"{written(rng, 2000)}\n{notice}" for _ in range(2))
    assert PLUGIN.match(fingerprint_of(one), fingerprint_of(other))
    (tmp_path / "notice.txt").write_text(notice, encoding="utf-8")
    plugin = plugin_with(tmp_path, monkeypatch)
    assert plugin.match(fingerprint_of(one, plugin=plugin), fingerprint_of(other, plugin=plugin)) == []
    assert plugin.parameters["hash"] != PLUGIN.parameters["hash"], "what was hashed without it is not reused"


def test_a_folder_of_boilerplate_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"text_boilerplate: .* is no folder"):
        plugin_with(tmp_path / "missing", monkeypatch)
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)
    with pytest.raises(UsageError, match=r"picture\.txt"):
        plugin_with(tmp_path, monkeypatch)


def plugin_with(folder, monkeypatch):
    """The content type with `folder` as the user's boilerplate."""
    monkeypatch.setenv("FINGERPRINT_TEXT_BOILERPLATE", str(folder))
    get_settings.cache_clear()
    try:
        plugin = TextPlugin()
        assert plugin.parameters["hash"]
    finally:
        get_settings.cache_clear()
    return plugin


def test_more_different_words_are_more_evidence():
    rng = random.Random(8)
    original = written(rng, 400).split()
    found = []
    for count in (25, 60, 200):
        quoting = [*written(rng, 300).split(), *original[100 : 100 + count], *written(rng, 300).split()]
        [match] = PLUGIN.match(fingerprint_of(" ".join(quoting)), fingerprint_of(" ".join(original)))
        assert MIN_DISTINCT <= match.strength <= count
        found.append(match.strength)
    assert found == sorted(found)


def test_evidence_is_told_of_unrelated_texts_too():
    rng = random.Random(9)
    shared = written(rng, 8)
    one, other = (fingerprint_of(f"{written(rng, 200)} {shared} {written(rng, 200)}") for _ in range(2))
    assert PLUGIN.match(one, other) == []
    told = PLUGIN.strengths(one, other)
    assert 4 <= told[CONTAINMENT] == told[SIMILARITY] < MIN_DISTINCT
    copied = PLUGIN.strengths(one, fingerprint_of(shared * 3))
    [match] = PLUGIN.match(one, one)
    assert PLUGIN.strengths(one, one)[match.evidence] == match.strength > copied[CONTAINMENT]


# --- from end to end


def test_copies_are_found_among_many_texts():
    rng = random.Random(11)
    store = ExactStore()
    texts = [written(rng, rng.randint(100, 600)) for _ in range(60)]
    store.put([fingerprint_of(text, str(number)) for number, text in enumerate(texts)])
    for number, text in enumerate(texts[:20]):
        words = text.split()
        quoted = written(rng, 500) + "\n" + " ".join(words[30:80]) + "\n" + written(rng, 500)
        for query in (edited(text, rng, 0.15), quoted, text.upper()):
            assert {match.reference.content_id for match in find_copies(store, PLUGIN, fingerprint_of(query), 10)} == {
                str(number)
            }


def test_the_sketch_says_what_a_person_wants_to_see():
    sketch = sketch_of(GERMAN)
    assert sketch.info == {
        "characters": len(GERMAN),
        "words": len(re.findall(r"\w+", GERMAN)),
        "encoding": "utf-8",
        "low_information": False,
    }
    assert [(component.algorithm, component.kind) for component in sketch.components] == [
        ("minhash_v2", "data"),
        ("minhash_lsh_v2", "tokens"),
        ("winnowing_v1", "tokens"),
        ("simhash64_v1", "hamming"),
        ("iscc_text_v0", "data"),
        ("text_words_v1", "data"),
        ("text_long_words_v1", "data"),
        ("text_boilerplate_v1", "data"),
    ]
    assert sketch_of("Hello").info["words"] == 1


def test_a_fingerprint_takes_half_of_the_text():
    text = written(random.Random(12), 10_000)
    stored = encode(sketch_to_value(sketch_of(text)))
    assert len(stored) <= 0.6 * len(text)
    sketch = sketch_of(text)
    assert sketch.component(WORDS).values.nbytes == 20_000
    assert len(sketch.component(WINNOWING).values) <= 1200


def test_a_text_without_words_has_an_empty_fingerprint():
    sketch = sketch_of("\u0301?!")
    assert sketch.info["low_information"]
    assert PLUGIN.match(fingerprint_of("..."), fingerprint_of("---")) == []


@given(st.text(max_size=200), st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_two_texts_can_be_compared(one, other):
    one, other = (text.encode("utf-8", "replace").decode() for text in (one, other))
    for match in PLUGIN.match(fingerprint_of(one), fingerprint_of(other)):
        assert 0 <= match.score <= 1
        assert match.strength is None or match.strength >= 0
        assert 0 <= match.query_range[0] < match.query_range[1] <= len(one)
        assert 0 <= match.reference_range[0] < match.reference_range[1] <= len(other)


# --- meaning


def test_without_the_model_texts_have_no_vector(monkeypatch):
    monkeypatch.setattr(semantic, "_PACKAGE", "no-such-package")
    assert semantic_version() is None
    plugin = TextPlugin()
    monkeypatch.setattr("fingerprint_dagster.media.text.semantic_version", lambda: None)
    plugin = TextPlugin()
    assert plugin.parameters["embed"] == {"model": None}
    assert plugin.embed([Value(), Value()], None) == [Value(), Value()]
    assert not plugin.has_model


def test_texts_of_the_same_meaning_are_a_suggestion_only():
    rng = np.random.default_rng(13)
    vector = rng.integers(-127, 128, 512).astype(np.int8)
    near = np.clip(vector + rng.integers(-20, 21, 512), -127, 127).astype(np.int8)
    far = rng.integers(-127, 128, 512).astype(np.int8)
    query, same, other = (
        fingerprint_of(text, embedded=Value({SEMANTIC: values}))
        for text, values in ((GERMAN, vector), (RUSSIAN, near), (KOREAN, far))
    )
    [found] = PLUGIN.match(query, same)
    assert found.evidence == SEMANTIC
    assert found.details == {"suggestion": True}
    assert PLUGIN.match(query, other) == []


@pytest.mark.skipif(semantic_version() is None, reason="the semantic extra is not installed")
def test_a_translation_is_nearer_than_another_text():
    english = (
        "While the bakery opens early, the pupil practises for her exam. Later she drives over the bridge to Cologne"
    )
    vectors = [semantic_v1(text).astype(float) for text in (english, GERMAN, RUSSIAN)]
    cosines = [vectors[0] @ other / np.linalg.norm(vectors[0]) / np.linalg.norm(other) for other in vectors[1:]]
    assert cosines[0] >= 0.6
    assert cosines[1] <= 0.5
