import random
import re
import tracemalloc
from importlib.metadata import distributions
from pathlib import Path

import iscc_samples
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.codec import decode as decode_value
from fingerprint_dagster.codec import encode, sketch_to_value, value_to_sketch
from fingerprint_dagster.content import Content, Fingerprint, Sketch, Value
from fingerprint_dagster.errors import ContentError
from fingerprint_dagster.media.text import TextPlugin, minhash
from fingerprint_dagster.media.text import decode as decoding
from fingerprint_dagster.media.text.decode import html_text, sniff, text_of
from fingerprint_dagster.media.text.minhash import BANDS, SIZE, jaccard, lsh_tokens_v1, minhash_v1, shingles_v1
from fingerprint_dagster.media.text.normalize import count_words, normalize_v1

PLUGIN = TextPlugin()
SAMPLES = {path.name: path for path in iscc_samples.texts()}

GERMAN = (
    "Während die Bäckerei früh öffnet, übt die Schülerin für ihre Prüfung. Später fährt sie über die Brücke nach "
    "Köln, wo ihr großer Bruder Äpfel verkauft. Es heißt, die schönsten Früchte hängen höher als jede Leiter. "
)
RUSSIAN = (
    "Утром мальчик вышел из дома и увидел на дороге старую лошадь. Она медленно шла к реке, а за ней бежала собака. "
    "Вечером отец рассказал, что эта лошадь живёт у соседа уже двадцать лет и никого не боится. "
)
JAPANESE = (
    "昨日は友達と一緒に山へ登りました。天気がとても良くて、頂上からは海が見えました。帰りに小さな店で温かいうどんを食べました。"
    "店の人は親切で、道も教えてくれました。"
)
CHINESE = (
    "春天来了，公园里的花都开了。孩子们在草地上放风筝，老人坐在树下聊天。中午的时候下了一点小雨，大家都跑到亭子里避雨。"
    "雨停以后，天空中出现了一道美丽的彩虹。"
)
TRADITIONAL = (
    "春天來了，公園裡的花都開了。孩子們在草地上放風箏，老人坐在樹下聊天。中午的時候下了一點小雨，大家都跑到亭子裡避雨。"
)
KOREAN = (
    "어제 저녁에 우리 가족은 강가를 따라 오래 걸었습니다. 바람이 시원하게 불었고 하늘에는 별이 많이 보였습니다. "
    "집에 돌아와서 따뜻한 차를 마시며 이야기를 나누었습니다. "
)
THAI = "เมื่อวานนี้ฉันไปตลาดกับแม่เพื่อซื้อผลไม้และดอกไม้สำหรับงานวันเกิดของยาย ตอนเย็นทุกคนช่วยกันทำอาหารและร้องเพลงอย่างมีความสุข"


def written(tmp_path, data, name="x.txt"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def sketch_of(path):
    decoded = decode_value(encode(PLUGIN.decode(path)))  # as it travels between two stages
    return value_to_sketch(decode_value(encode(sketch_to_value(PLUGIN.hash(decoded, Value())))))


def fingerprint_of(path, name="a"):
    return Fingerprint(Content(name, path.as_uri(), "text"), "", 0, "text/plain", "", sketch_of(path))


def signature(text):
    return minhash_v1(normalize_v1(text))


def licences():
    """The licence texts of the installed packages."""
    for distribution in distributions():
        for file in distribution.files or ():
            if re.search(r"licen[cs]e(\.txt|\.md)?$", file.name, re.IGNORECASE):
                yield file.locate()


# --- what is text


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("demo.txt", "text/plain"),
        ("demo.md", "text/plain"),
        ("demo.json", "text/plain"),
        ("demo.xml", "text/plain"),
        ("demo.html", "text/html"),
        ("demo.xhtml", "text/html"),
    ],
)
def test_texts_are_recognised(name, media):
    assert sniff(SAMPLES[name].read_bytes()[:4096]) == media


@pytest.mark.parametrize(
    "path",
    [
        *iscc_samples.images(),
        *iscc_samples.audios(),
        *iscc_samples.videos(),
        *(SAMPLES[f"demo.{ending}"] for ending in "doc docx epub mobi odt pdf ppt pptx rtf sqlite xls xlsx".split()),  # noqa: SIM905
    ],
    ids=lambda path: path.name,
)
def test_media_and_documents_are_no_texts(path):
    assert sniff(path.read_bytes()[:4096]) is None
    with pytest.raises(ContentError, match="not text"):
        PLUGIN.decode(path)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xfb\x90\x64",
        b"PK\x03\x04",
        b"%PDF-1.7\nplain words only",
        b"{\\rtf1 words}",
        b"%!PS-Adobe-3.0\nwords",
        b"\0" * 100,
        b"abc\0def",
        b'<?xml version="1.0"?>\n<!-- logo -->\n<svg xmlns="http://www.w3.org/2000/svg"><text>words</text></svg>',
    ],
)
def test_other_things_are_no_texts(head):
    assert sniff(head) is None


def test_random_bytes_are_no_text():
    rng = random.Random(1)
    assert [sniff(rng.randbytes(4096)) for _ in range(200)] == [None] * 200
    assert [sniff(b"\xff\xfe" + rng.randbytes(4096)) for _ in range(200)] == [None] * 200


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_sniffing_never_raises(head):
    for start in (b"", b"\xff\xfe", b"\xef\xbb\xbf", b"<?xml", b"<meta charset=", b"ab\0"):
        assert sniff(start + head) in (None, "text/plain", "text/html")


@pytest.mark.parametrize(
    "page",
    ["<!DOCTYPE html><p>x", "\n <HTML><p>x", "<!-- c --><html>", '<?xml version="1.0"?><html>', "\ufeff<head><title>x"],
)
def test_html_is_recognised_behind_its_prologue(page):
    assert sniff(page.encode()) == "text/html"
    assert sniff(b"Write <html> first.") == "text/plain"


# --- decoding


ENCODINGS = [
    (GERMAN, "utf-8", "utf-8"),
    (GERMAN, "utf-8-sig", "utf-8-sig"),
    (GERMAN, "utf-16", "utf-16"),
    (GERMAN, "utf-16-le", "utf-16-le"),
    (GERMAN, "utf-16-be", "utf-16-be"),
    (GERMAN, "utf-32", "utf-32"),
    (CHINESE, "utf-16", "utf-16"),
    (GERMAN, "cp1252", None),
    (RUSSIAN, "cp1251", None),
    (RUSSIAN, "koi8-r", None),
    (JAPANESE, "shift_jis", None),
    (JAPANESE, "euc_jp", None),
    (CHINESE, "gb18030", None),
    (TRADITIONAL, "big5", None),
    (KOREAN, "euc_kr", None),
]


@pytest.mark.parametrize(("text", "encoding", "name"), ENCODINGS, ids=[f"{name}" for _, name, _ in ENCODINGS])
def test_the_same_text_in_any_encoding(tmp_path, text, encoding, name):
    path = written(tmp_path, (text * 5).encode(encoding))
    assert PLUGIN.sniff(path.read_bytes()[:4096]) == "text/plain"
    decoded = PLUGIN.decode(path)
    assert text_of(decoded) == text * 5
    assert decoded.info["characters"] == len(text) * 5
    assert decoded.info["media"] == "text/plain"
    if name:
        assert decoded.info["encoding"] == name


def test_a_head_may_end_inside_a_character():
    for text, encoding in ((GERMAN, "utf-8"), (JAPANESE, "utf-8"), (JAPANESE, "shift_jis"), (KOREAN, "euc_kr")):
        for shift in range(3):
            data = ("x" * shift + text * 100).encode(encoding)
            assert sniff(data[:4096]) == "text/plain"


def test_foreign_bytes_deep_in_a_long_ascii_file(tmp_path):
    path = written(tmp_path, ("Plain words on many lines.\n" * 40_000 + GERMAN * 5).encode("cp1252"))
    assert text_of(PLUGIN.decode(path)).endswith(GERMAN)


def test_a_declared_encoding_is_believed(tmp_path):
    page = '<html><meta charset="{}"><body>' + RUSSIAN
    for encoding in ("windows-1251", "koi8-r", "iso-8859-5"):
        decoded = PLUGIN.decode(written(tmp_path, page.format(encoding).encode(encoding)))
        assert text_of(decoded) == RUSSIAN.strip()
        assert decoded.info["encoding"] == encoding
    for wrong in ("klingon", "base64", "utf-16"):
        assert "Утром" in text_of(PLUGIN.decode(written(tmp_path, (page.format(wrong) * 3).encode("cp1251"))))


def test_html_is_read_without_what_is_not_read():
    page = """<!DOCTYPE html><html><head><title>T</title><style>p {color: red}</style>
    <script>if (a < b) { alert("<p>no</p>") }</script></head><body><nav><ul><li><a href="/">Home</a></ul></nav>
    <h1>One &amp; two</h1><p>Th<b>re</b>e</p><p>four<br>five<table><tr><td>six</td><td>seven</td></tr></table>
    <noscript>no</noscript><svg><text>no</text></svg><!-- no --> eight</body></html>"""
    assert html_text(page).split() == ["One", "&", "two", "Three", "four", "five", "six", "seven", "eight"]


def test_the_same_text_as_html_xhtml_and_plain():
    plain = sketch_of(SAMPLES["demo.txt"]).component("minhash_v1").values
    for name in ("demo.html", "demo.xhtml"):
        assert jaccard(plain, sketch_of(SAMPLES[name]).component("minhash_v1").values) >= 0.95
    assert jaccard(plain, sketch_of(SAMPLES["demo.md"]).component("minhash_v1").values) <= 0.05


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty text"),
        (b" \n\t\r\n", "empty text"),
        ("\u3000\u00a0".encode(), "empty text"),
        (b"\xef\xbb\xbf", "empty text"),
        (b"\xff\xfe", "empty text"),
        (b"!!! --- ???", "empty text"),
        (b"<html><script>only()</script></html>", "empty text"),
        (b"abc\0\1\2def", "not text"),
        (b"words and words\n" * 500 + bytes(range(256)) * 100, "not text"),
        (b"words \xff\xfe\xfd" + bytes(range(128, 256)) * 10 + b"\x01", "not text"),
    ],
)
def test_what_cannot_be_decoded_is_said(tmp_path, data, says):
    with pytest.raises(ContentError, match=says) as caught:
        PLUGIN.decode(written(tmp_path, data))
    assert not caught.value.retryable


def test_files_over_the_limits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_BYTES", 1000)
    monkeypatch.setattr(decoding, "MAX_HTML_BYTES", 100)
    assert PLUGIN.decode(written(tmp_path, "x" * 1000)).info["characters"] == 1000
    with pytest.raises(ContentError, match="too large: 1001 bytes"):
        PLUGIN.decode(written(tmp_path, "x" * 1001))
    with pytest.raises(ContentError, match="too large: 101 bytes of HTML"):
        PLUGIN.decode(written(tmp_path, "<html>" + "x" * 95))


# --- normalising


def test_what_a_copy_may_change_is_normalised_away():
    assert normalize_v1("  The ﬁrst\u00a0Straße,\n“don’t”—\u200bＷａｉｔ\u2009…  ") == "the first strasse don t wait"
    assert normalize_v1("so\u00adft\u202e\u2066 cafe\u0301 \ufeff") == normalize_v1("SOFT CAFÉ")
    assert normalize_v1("हिन्दी में") == "हिन्दी में"  # vowel signs stay in their words
    assert normalize_v1("!?") == ""
    assert count_words("") == 0


def test_scripts_without_spaces_are_split_into_characters():
    assert normalize_v1("春天来了。OK") == "春 天 来 了 ok"
    assert normalize_v1("ｶﾞｽ") == "ガ ス"
    assert count_words(normalize_v1("한국어 단어")) == 2
    assert count_words(normalize_v1("ไทย")) == 3


@given(st.text(max_size=60))
@settings(max_examples=500)
def test_normalising_twice_changes_nothing(text):
    once = normalize_v1(text)
    assert normalize_v1(once) == once
    assert once == " ".join(once.split())


# --- signatures


@given(st.lists(st.text("abcdeé字รก0", min_size=1, max_size=5), min_size=1, max_size=30), st.randoms())
def test_white_space_case_and_punctuation_do_not_matter(words, rng):
    one = " ".join(words)
    other = "".join(word.upper() + rng.choice([" ", "\n\n", ", ", "\u3000", " — ", "!\t"]) for word in words)
    assert (signature(one) == signature(other)).all()


def test_the_estimate_agrees_with_the_true_jaccard_similarity():
    """The oracle: sets of word triples compared by brute force. The error must be that of 128 independent draws."""
    rng = random.Random(2)
    deviations = []
    for _ in range(300):
        shared = rng.uniform(0.02, 0.98)
        words = [str(rng.randrange(10**9)) for _ in range(rng.randrange(60, 600))]
        cut = int(len(words) * shared)
        others = words[:cut] + [str(rng.randrange(10**9)) for _ in words[cut:]]
        one, other = (set(zip(w, w[1:], w[2:], strict=False)) for w in (words, others))
        truth = len(one & other) / len(one | other)
        estimate = jaccard(signature(" ".join(words)), signature(" ".join(others)))
        if 0 < truth < 1:
            deviations.append((estimate - truth) / np.sqrt(truth * (1 - truth) / SIZE))
    assert abs(np.mean(deviations)) < 4 / np.sqrt(len(deviations))
    assert 0.7 < np.var(deviations) < 1.4


@given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=3, max_size=40))
def test_shingles_are_the_word_triples(words):
    hashes = np.concatenate(list(shingles_v1(" ".join(words))))
    triples = list(zip(words, words[1:], words[2:], strict=False))
    assert len(hashes) == len(triples)
    assert len(set(hashes.tolist())) == len(set(triples))
    assert len(set(zip(hashes.tolist(), triples, strict=True))) == len(set(triples))


@pytest.mark.parametrize("text", [GERMAN * 3, JAPANESE * 2, "w 字 " * 50 + GERMAN, THAI, "one", "字 字 字 字 a"])
def test_blocks_do_not_show_in_the_shingles(monkeypatch, text):
    normalised = normalize_v1(text)
    whole = np.concatenate(list(shingles_v1(normalised)))
    for size in (1, 2, 7, 40):
        monkeypatch.setattr(minhash, "_BLOCK_CHARACTERS", size)
        assert np.concatenate(list(shingles_v1(normalised))).tolist() == whole.tolist()


def test_a_long_text_takes_little_memory(monkeypatch):
    rng = random.Random(3)
    text = " ".join(rng.choice(("alpha", "beta", "gamma", "delta")) + str(i) for i in range(300_000))
    monkeypatch.setattr(minhash, "_BLOCK_CHARACTERS", 1 << 16)
    tracemalloc.start()
    minhash_v1(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < len(text)  # the words alone as Python objects would take ten times the text


def test_short_texts():
    for text in ("one", "one two", "字", "字字字"):
        assert (signature(text) == signature(text.upper())).all()
    assert jaccard(signature("one"), signature("two")) < 0.05
    assert jaccard(signature("one two"), signature("two one")) < 0.05
    assert (minhash_v1("") == 2**32 - 1).all()
    assert minhash_v1("").shape == (SIZE,)


def test_the_signature_of_a_known_text_stays_the_same():
    """The algorithm is a contract: stored fingerprints of version 1 must stay comparable for ever."""
    values = signature("The quick brown fox jumps over the lazy dog")
    assert (values.dtype, values.shape) == (np.uint32, (SIZE,))
    assert values[:4].tolist() == KNOWN_SIGNATURE
    tokens = lsh_tokens_v1(values)
    assert (tokens.dtype, tokens.shape) == (np.uint64, (BANDS,))
    assert tokens[:2].tolist() == KNOWN_TOKENS


KNOWN_SIGNATURE = [312675614, 1188950009, 276731276, 131603738]
KNOWN_TOKENS = [5673576156940266552, 14504857790170816319]


def test_tokens_meet_as_the_s_curve_says():
    rng = np.random.default_rng(4)
    for similarity in (0.2, 0.4, 0.5, 0.7):
        met = 0
        for _ in range(1000):
            one = rng.integers(0, 2**32, SIZE, np.uint32)
            other = np.where(rng.random(SIZE) < similarity, one, rng.integers(0, 2**32, SIZE, np.uint32))
            met += bool((lsh_tokens_v1(one) == lsh_tokens_v1(other)).any())
        expected = 1 - (1 - similarity**4) ** BANDS
        assert abs(met / 1000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000) + 0.001


def test_equal_rows_in_different_bands_are_different_tokens():
    assert len(set(lsh_tokens_v1(np.zeros(SIZE, np.uint32)).tolist())) == BANDS


# --- copies


def edited(text, rng, share):
    return " ".join(rng.choice(("red", "green", "blue")) if rng.random() < share else word for word in text.split())


@pytest.mark.parametrize("text", [JAPANESE, CHINESE, THAI, KOREAN * 2, RUSSIAN * 2], ids="ja zh th ko ru".split())  # noqa: SIM905
def test_copies_in_other_scripts(text):
    cut = len(text) // 10
    assert jaccard(signature(text), signature(text[cut:])) >= 0.7
    others = [other for other in (JAPANESE, CHINESE, THAI, KOREAN, RUSSIAN, GERMAN) if other not in text]
    assert max(jaccard(signature(text), signature(other)) for other in others) <= 0.05


def test_an_edited_copy_matches_and_another_text_does_not(tmp_path):
    original = SAMPLES["demo.md"].read_text(encoding="utf-8")
    changed = edited(original, random.Random(6), 0.03)
    query = fingerprint_of(written(tmp_path, changed, "q.txt"), "q")
    reference = fingerprint_of(SAMPLES["demo.md"], "r")
    [found] = PLUGIN.match(query, reference)
    assert found.reference == reference.content
    assert found.evidence == "minhash_v1"
    assert 0.7 < found.score < 1
    assert found.query_range == (0, len(changed))
    assert found.reference_range == (0, len(original))
    assert PLUGIN.match(fingerprint_of(SAMPLES["demo.txt"]), reference) == []
    assert PLUGIN.match(Fingerprint(query.content, "", 0, "", "", Sketch(())), reference) == []


def test_the_sketch_says_what_a_person_wants_to_see(tmp_path):
    sketch = sketch_of(written(tmp_path, GERMAN.encode()))
    assert sketch.info == {
        "characters": len(GERMAN),
        "words": len(re.findall(r"\w+", GERMAN)),
        "encoding": "utf-8",
        "low_information": False,
    }
    assert [(part.algorithm, part.kind) for part in sketch.components] == [
        ("minhash_v1", "data"),
        ("minhash_lsh_v1", "tokens"),
    ]
    one_word = sketch_of(written(tmp_path, "Hello"))
    assert one_word.info["low_information"]
    assert one_word.info["words"] == 1


def test_licences_find_their_like(tmp_path):
    """Real texts: the Apache licences among the installed packages are one text, the short MIT ones are not it."""
    kinds = {"apache": [], "mit": []}
    for path in licences():
        text = Path(path).read_text(encoding="utf-8", errors="replace") if Path(path).is_file() else ""
        words = count_words(normalize_v1(text))
        if "Apache License" in text and 1400 < words < 1700:
            kinds["apache"].append(signature(text))
        elif "Permission is hereby granted, free of charge" in text and words < 200:
            kinds["mit"].append(signature(text))
    assert min(map(len, kinds.values())) >= 3, "the test needs some installed packages with their licence texts"
    for signatures in kinds.values():
        assert min(jaccard(signatures[0], other) for other in signatures) >= 0.5
    assert max(jaccard(one, other) for one in kinds["apache"] for other in kinds["mit"]) <= 0.1
