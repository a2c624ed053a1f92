import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerprint_dagster.media.text import words as words_module
from fingerprint_dagster.media.text.alignment import passages
from fingerprint_dagster.media.text.boilerplate import boilerplate_tokens, boilerplate_v1, is_boilerplate
from fingerprint_dagster.media.text.iscc import text_code_v0
from fingerprint_dagster.media.text.minhash import BANDS, SIZE, jaccard, lsh_tokens_v2, minhash_v2
from fingerprint_dagster.media.text.normalize import normalize_v2
from fingerprint_dagster.media.text.simhash import simhash_v1
from fingerprint_dagster.media.text.winnowing import GUARANTEED_CHARACTERS, GUARANTEED_WORDS, WINDOW, winnow_v1
from fingerprint_dagster.media.text.words import packed_words_v1, shingles_v1, word_places_v1, words_v1

WORD_LISTS = st.lists(st.text("abcdeé字รก0", min_size=1, max_size=5), min_size=1, max_size=30)
KANJI = "春天来了公园里的花都开孩子们在草地上放风筝老人坐树下聊中午时候小雨大家跑到亭避停以后空出现一道美丽彩虹"


def words_of(text):
    return words_v1(normalize_v2(text))


def shingles_of(text):
    return shingles_v1(words_of(text))


def signature(text):
    return minhash_v2(shingles_of(text))


def numbered(rng, count):
    """Different words."""
    return [f"w{rng.randrange(10**9)}" for _ in range(count)]


# --- words and their places


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None)
def test_words_know_their_places(text):
    words = words_of(text)
    assert len(words) == len(normalize_v2(text).text.split())
    assert (words.starts < words.ends).all()
    assert (np.diff(words.starts) >= 0).all()
    assert (words.starts >= 0).all()
    assert (words.ends <= len(text)).all()


def test_equal_words_have_equal_hashes_and_others_do_not():
    rng = random.Random(1)
    text = " ".join(numbered(rng, 20_000))
    hashes = words_of(text).hashes
    assert len(set(hashes.tolist())) == len(set(text.split()))
    assert (words_of("x " + text).hashes[1:] == hashes).all()
    assert (words_of("é 字 " + text).hashes[2:] == hashes).all()  # the way of ASCII and that of Unicode agree


def test_characters_of_scripts_without_spaces_are_words():
    words = words_of("abc 春天 กข de")
    assert words.unspaced.tolist() == [False, True, True, True, True, False]
    assert words.starts.tolist() == [0, 4, 5, 7, 8, 10]
    assert words.ends.tolist() == [3, 5, 6, 8, 9, 12]


@pytest.mark.parametrize("size", [1, 2, 7, 40])
def test_blocks_do_not_show_in_the_words(monkeypatch, size):
    text = "Während die 春天来了 Bäckerei öffnet, it was   สวัสดี w 字 x" * 3
    whole = words_of(text)
    monkeypatch.setattr(words_module, "_BLOCK_CHARACTERS", size)
    parts = words_of(text)
    for name in ("hashes", "starts", "ends", "unspaced"):
        assert (getattr(parts, name) == getattr(whole, name)).all()


@given(st.text(max_size=120))
@settings(max_examples=300, deadline=None)
def test_packed_words_keep_every_place(text):
    words = words_of(text + " \u3358 " + "x" * 40 + " " * 40 + "y")
    packed, long = packed_words_v1(words)
    assert packed.shape == (len(words), 2)
    starts, ends = word_places_v1(packed, long)
    assert (starts == words.starts).all()
    assert (ends == words.ends).all()
    assert ((packed[:, 0] >= 128) == words.unspaced).all()


# --- shingles


@given(st.lists(st.text("ab", min_size=1, max_size=2), min_size=3, max_size=40))
@settings(deadline=None)
def test_shingles_are_the_word_triples(words):
    triples = list(zip(words, words[1:], words[2:], strict=False))
    hashes = shingles_of(" ".join(words)).tolist()
    assert len(hashes) == len(triples)
    assert len(set(hashes)) == len(set(triples)) == len(set(zip(hashes, triples, strict=True)))


def test_shingles_of_scripts_without_spaces_are_longer():
    assert len(shingles_of("春" * 6)) == 1
    assert len(set(shingles_of(KANJI).tolist())) == len(KANJI) - 5
    assert len(shingles_of("a b c " + KANJI)) == len(KANJI) - 5 + 3
    for text in ("one", "one two", "字", "字字字"):
        assert len(shingles_of(text)) == 1
    assert len(shingles_of("")) == 0


@given(WORD_LISTS, st.randoms())
@settings(deadline=None)
def test_white_space_case_and_punctuation_do_not_matter(words, rng):
    one = " ".join(words)
    other = "".join(word.upper() + rng.choice([" ", "\n\n", ", ", "\u3000", " — ", "!\t"]) for word in words)
    assert shingles_of(one).tolist() == shingles_of(other).tolist()


# --- MinHash


def test_the_estimate_agrees_with_the_true_jaccard_similarity():
    """The oracle: sets of word triples compared by brute force. The error must be no more than that of 128 draws."""
    rng = random.Random(2)
    deviations = []
    for _ in range(300):
        shared = rng.uniform(0.02, 0.98)
        words = numbered(rng, rng.randrange(60, 1000))
        cut = int(len(words) * shared)
        others = words[:cut] + numbered(rng, len(words) - cut)
        one, other = (set(zip(w, w[1:], w[2:], strict=False)) for w in (words, others))
        truth = len(one & other) / len(one | other)
        if 0 < truth < 1:
            estimate = jaccard(signature(" ".join(words)), signature(" ".join(others)))
            deviations.append((estimate - truth) / np.sqrt(truth * (1 - truth) / SIZE))
    assert abs(np.mean(deviations)) < 4 / np.sqrt(len(deviations))
    assert np.var(deviations) < 1.3


def test_signatures_of_short_texts():
    assert jaccard(signature("one"), signature("two")) < 0.05
    assert jaccard(signature("one two"), signature("two one")) < 0.05
    assert (minhash_v2(np.empty(0, np.uint64)) == 2**32 - 1).all()


def test_the_signature_of_a_known_text_stays_the_same():
    """The algorithms are a contract: stored fingerprints of one version must stay comparable for ever."""
    shingles = shingles_of("The quick brown fox jumps over the lazy dog")
    values = minhash_v2(shingles)
    assert (values.dtype, values.shape) == (np.uint32, (SIZE,))
    tokens = lsh_tokens_v2(values)
    assert (tokens.dtype, tokens.shape) == (np.uint64, (BANDS,))
    assert [*values[:2].tolist(), *tokens[:2].tolist()] == KNOWN_SIGNATURE
    assert simhash_v1(shingles).tobytes().hex() == KNOWN_SIMHASH
    assert winnow_v1(shingles).tolist() == KNOWN_TOKENS


KNOWN_SIGNATURE = [3330724294, 2653203576, 12017802875350458246, 4425677112562255189]
KNOWN_SIMHASH = "2f3c4da8b0ebbd4f"
KNOWN_TOKENS = [2240495907411467279]


def test_tokens_meet_as_the_s_curve_says():
    rng = np.random.default_rng(4)
    for similarity in (0.05, 0.1, 0.2, 0.4):
        met = 0
        for _ in range(1000):
            one = rng.integers(0, 2**32, SIZE, np.uint32)
            other = np.where(rng.random(SIZE) < similarity, one, rng.integers(0, 2**32, SIZE, np.uint32))
            met += bool((lsh_tokens_v2(one) == lsh_tokens_v2(other)).any())
        expected = 1 - (1 - similarity**2) ** BANDS
        assert abs(met / 1000 - expected) < 4 * np.sqrt(expected * (1 - expected) / 1000) + 0.001


def test_equal_rows_in_different_bands_are_different_tokens():
    assert len(set(lsh_tokens_v2(np.zeros(SIZE, np.uint32)).tolist())) == BANDS


# --- SimHash


def test_simhash_is_the_majority_of_the_bits():
    values = np.array([0b1100, 0b1010, 0b1001], np.uint64) | np.uint64(1 << 63)
    assert simhash_v1(values).tobytes() == (0b1000 | 1 << 63).to_bytes(8, "big")
    assert simhash_v1(np.empty(0, np.uint64)).tobytes() == bytes(8)
    rng = random.Random(5)
    words = numbered(rng, 2000)
    near = simhash_v1(shingles_of(" ".join(words))) ^ simhash_v1(shingles_of(" ".join(words[40:])))
    far = simhash_v1(shingles_of(" ".join(words))) ^ simhash_v1(shingles_of(" ".join(numbered(rng, 2000))))
    assert np.bitwise_count(near).sum() <= 12 < 20 <= np.bitwise_count(far).sum()


# --- winnowing: the guarantee


@given(st.randoms(use_true_random=False), st.integers(0, 60), st.integers(0, 60), st.integers(0, 30))
@settings(max_examples=300, deadline=None)
def test_any_shared_passage_of_the_guaranteed_length_gives_a_common_token(rng, before, after, more):
    """Also among texts of few different words, where nearly everything is repeated."""
    vocabulary = rng.choice([["a", "b"], ["a", "b", "c", "d"], numbered(rng, 50)])
    passage = rng.choices(vocabulary, k=GUARANTEED_WORDS + more)
    texts = [
        " ".join([*rng.choices(vocabulary, k=n), *passage, *rng.choices(vocabulary, k=m)])
        for n, m in ((before, after), (after, 2 * before))
    ]
    one, other = (winnow_v1(shingles_of(text)) for text in texts)
    assert len(np.intersect1d(one, other))


@given(st.randoms(use_true_random=False), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_the_same_in_scripts_without_spaces(rng, before, after):
    passage = "".join(rng.choices(KANJI, k=GUARANTEED_CHARACTERS))
    texts = ["".join(rng.choices(KANJI, k=n)) + passage + "".join(rng.choices(KANJI, k=after)) for n in (before, after)]
    one, other = (winnow_v1(shingles_of(text)) for text in texts)
    assert len(np.intersect1d(one, other))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=100), st.integers(1, 30))
@settings(deadline=None)
def test_the_tokens_are_the_minima_of_all_windows(shingles, window):
    """The oracle: each window by itself."""
    shingles = np.array(shingles, np.uint64)
    count = max(1, len(shingles) - window + 1) if len(shingles) else 0
    expected = sorted({int(shingles[start : start + window].min()) for start in range(count)})
    assert winnow_v1(shingles, window).tolist() == expected


def test_few_shingles_are_kept():
    tokens = winnow_v1(shingles_of(" ".join(numbered(random.Random(6), 20_000))))
    assert len(tokens) / 20_000 == pytest.approx(2 / (WINDOW + 1), rel=0.05)


# --- alignment


def bytes_of(words):
    return packed_words_v1(words_of(" ".join(words)))[0][:, 0]


def test_the_passages_of_two_texts():
    rng = random.Random(7)
    shared = [numbered(rng, 40) for _ in range(2)]
    query = [*numbered(rng, 100), *shared[0], *numbered(rng, 200), *shared[1]]
    reference = [*shared[1], *numbered(rng, 300), *shared[0], *numbered(rng, 50)]
    found = [passage for passage in passages(bytes_of(query), bytes_of(reference)) if len(passage.query_words) > 10]
    assert {(passage.query, passage.reference) for passage in found} == {
        ((100, 140), (340, 380)),
        ((340, 380), (0, 40)),
    }


def test_a_passage_goes_on_over_edits():
    rng = random.Random(8)
    words = numbered(rng, 300)
    changed = [*words[:50], *numbered(rng, 3), *words[50:100], *words[110:200], *numbered(rng, 5), *words[205:]]
    longest = passages(bytes_of(changed), bytes_of(words))[0]
    assert (longest.query, longest.reference) == ((0, 293), (0, 300))
    assert len(longest.query_words) == len(longest.reference_words) >= 285
    assert (np.diff(longest.query_words) > 0).all()
    assert (np.diff(longest.reference_words) > 0).all()


@given(st.lists(st.integers(0, 255), max_size=60), st.lists(st.integers(0, 255), max_size=60), st.booleans())
@settings(max_examples=300, deadline=None)
def test_words_of_a_passage_are_equal_and_in_order(one, other, joined):
    query, reference = np.array(one, np.uint8), np.array([*other, *one] if joined else other, np.uint8)
    for passage in passages(query, reference):
        assert (query[passage.query_words] == reference[passage.reference_words]).all()
        assert (np.diff(passage.query_words) > 0).all()
        assert (np.diff(passage.reference_words) > 0).all()


# --- boilerplate


def test_the_list_of_boilerplate_is_in_order():
    tokens = boilerplate_tokens()
    assert tokens.dtype == np.uint64
    assert (np.diff(tokens) > 0).all()
    assert is_boilerplate(tokens[::100], tokens).all()
    assert not is_boilerplate(tokens[::100] + np.uint64(1), tokens).any()


def test_where_boilerplate_stands_in_a_text():
    rng = random.Random(9)
    notice = (
        "Licensed under the Apache License, Version 2.0 (the License); you may not use this file except in compliance "
        "with the License. You may obtain a copy of the License at http://www.apache.org/licenses/LICENSE-2.0 Unless "
        "required by applicable law or agreed to in writing, software distributed under the License is distributed on "
        "an AS IS BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for "
        "the specific language governing permissions and limitations under the License."
    )
    shingles = shingles_of(" ".join([*numbered(rng, 200), notice, *numbered(rng, 200)]))
    tokens = winnow_v1(shingles)
    [(start, end)] = boilerplate_v1(shingles, tokens[is_boilerplate(tokens, boilerplate_tokens())])
    words = len(words_of(notice))
    assert abs(start - 200) <= WINDOW
    assert abs(end - 200 - words) <= WINDOW


# --- ISCC


def test_the_text_codes_of_the_standard(vectors):
    import iscc_lib

    cases = json.loads((vectors / "iscc-core" / "data.json").read_text(encoding="utf-8"))["gen_text_code_v0"]
    for case in cases.values():
        text, bits = case["inputs"]
        assert iscc_lib.gen_text_code_v0(text, bits)["iscc"] == case["outputs"]["iscc"]
        body = text_code_v0(text)
        assert body.shape == (32,)
        assert body.tobytes()[: bits // 8] == iscc_lib.iscc_decode(case["outputs"]["iscc"])[-1]
    assert len(cases) == 5


def test_the_implementation_conforms():
    import iscc_lib

    assert iscc_lib.conformance_selftest()
