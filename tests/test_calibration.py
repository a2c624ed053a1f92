import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fingerprint_dagster import calibration as calibrations
from fingerprint_dagster.calibration import KEPT, Calibration, Noise, clopper_pearson, strongest
from fingerprint_dagster.calibration.measure import comparing, measure, pairs_of
from fingerprint_dagster.cli import command
from fingerprint_dagster.content import Component, Content, Fingerprint, Match, Sketch
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.media.registry import content_type


def noise(strengths: Sequence[float], pairs: int, matched: int = 0) -> Noise:
    return Noise(("image",), "pdq_v1", 100, pairs, matched, strongest(strengths))


def exponential(pairs: int, seed: int = 0) -> Noise:
    """Strengths of which the share exp(-s) is above s."""
    return noise(np.random.default_rng(seed).exponential(size=pairs).tolist(), pairs)


def match(strength: float, evidence: str = "pdq_v1", content_type: str = "image") -> Match:
    return Match(Content("r", "file:///r", content_type), 0.5, evidence, strength=strength)


# ---- intervals


@given(st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, min(n, 300)), st.just(n))))
def test_the_interval_of_a_counted_share_is_the_exact_one(counted: tuple[int, int]) -> None:
    hits, trials = counted
    low, high = clopper_pearson(hits, trials)
    assert low <= hits / trials <= high
    # Seeing so many or more, and so few or fewer, are each as likely as 2.5 % at the ends.
    assert hits == 0 or stats.binom.sf(hits - 1, trials, low) == pytest.approx(0.025, rel=1e-6)
    assert hits == trials or stats.binom.cdf(hits, trials, high) == pytest.approx(0.025, rel=1e-6)


def test_nothing_seen_is_not_nothing() -> None:
    assert clopper_pearson(0, 300_000) == (0.0, pytest.approx(3.689 / 300_000, rel=1e-3))


# ---- rates and thresholds


def test_a_rate_that_was_met_is_counted() -> None:
    estimate = noise([*range(1, 101)], 10_000).estimate(81)
    assert (estimate.value, estimate.extrapolated) == (0.002, False)
    assert (estimate.low, estimate.high) == clopper_pearson(20, 10_000)


def test_a_threshold_that_was_met_is_counted() -> None:
    threshold = exponential(100_000).threshold(1e-3)
    assert threshold is not None
    assert not threshold.extrapolated
    assert threshold.low <= -math.log(1e-3) <= threshold.high
    assert threshold.high - threshold.low < 1


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_beyond_what_was_met_is_extrapolated(seed: int) -> None:
    threshold = exponential(20_000, seed).threshold(1e-6)
    assert threshold is not None
    assert threshold.extrapolated
    assert threshold.low <= -math.log(1e-6) <= threshold.high
    assert threshold.low < threshold.value < threshold.high


def test_the_extrapolation_follows_a_heavy_tail() -> None:
    """Of one where the share s**-2 is above s, a thousandth of the rate needs 31 times the strength."""
    random = np.random.default_rng(1)
    heavy = noise((random.random(50_000) ** -0.5).tolist(), 50_000)
    threshold = heavy.threshold(1e-6)
    assert threshold is not None
    assert threshold.low < 1e3 < threshold.high
    light = exponential(50_000).threshold(1e-6)
    assert light is not None
    assert threshold.value > 20 * light.value


@pytest.mark.parametrize("rate", [1e-3, 1e-5, 1e-7])
def test_a_rate_and_its_threshold_agree(rate: float) -> None:
    measured = exponential(100_000)
    threshold = measured.threshold(rate)
    assert threshold is not None
    assert measured.rate(threshold.value) == pytest.approx(rate, rel=0.15)


@given(
    st.lists(st.floats(0, 100, allow_nan=False), max_size=300),
    st.lists(st.floats(0, 1000, allow_nan=False), min_size=2, max_size=10),
)
def test_more_strength_is_never_met_more_often_and_never_impossible(met: list[float], asked: list[float]) -> None:
    measured = noise(met, 1000)
    rates = [measured.rate(strength) for strength in sorted(asked)]
    assert rates == sorted(rates, reverse=True)
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] > 0 or len(met) > 20  # a fitted tail may underflow far out


def test_where_too_little_was_met_nothing_is_extrapolated() -> None:
    few = noise([1, 2, 3], 10_000)
    assert few.rate(2) == 3 / 10_001
    assert few.rate(50) == 1 / 10_001
    assert few.threshold(1e-6) is None


def test_where_fewer_pairs_have_any_evidence_than_asked_all_evidence_will_do() -> None:
    few = noise([1, 2, 3], 10_000).threshold(1e-2)
    assert few is not None
    assert few.value == 0


def test_a_rate_of_which_not_enough_was_kept_has_no_threshold() -> None:
    assert exponential(10_000).threshold(KEPT / 10_000 * 2) is None


# ---- confidence


def test_confidence_is_the_share_of_copies_where_half_of_the_queries_have_one() -> None:
    """With 1 false match in 10,000 contents, every query has one of those, and every second one a copy."""
    measured = Calibration((noise([*range(1, 101)], 1_000_000),))
    assert measured.confidence("image", match(1)) == pytest.approx(1 / (1 + 10_000 * 1e-4))
    assert replace(measured, collection=100).confidence("image", match(1)) == pytest.approx(1 / (1 + 100 * 1e-4))


def test_evidence_that_was_not_measured_has_no_confidence() -> None:
    measured = Calibration((exponential(1000),))
    assert measured.confidence("image", match(1, evidence="other_v1")) is None
    assert measured.confidence("video", match(1)) is None


def test_the_sides_of_a_comparison_across_types_can_be_swapped() -> None:
    measured = Calibration((replace(exponential(1000), content_types=("image", "video")),))
    one = measured.confidence("image", match(5, content_type="video"))
    assert one is not None
    assert one == measured.confidence("video", match(5, content_type="image"))


def test_the_sound_of_a_video_is_told_by_the_noise_of_sounds() -> None:
    sounds = replace(exponential(1000), content_types=("audio",), evidence="landmarks_v1")
    videos = replace(exponential(10), content_types=("video",), evidence="soundtrack_landmarks_v1")
    heard = match(5, "soundtrack_landmarks_v1", "video")
    by_sounds = Calibration((sounds,)).rate("audio", heard)
    assert by_sounds is not None
    assert by_sounds == Calibration((sounds,)).rate("audio", match(5, "landmarks_v1", "audio"))
    assert Calibration((sounds, videos)).rate("audio", heard) == by_sounds
    assert Calibration((sounds, videos)).rate("video", heard) == videos.rate(5) != by_sounds


def test_without_a_strength_the_score_is_measured() -> None:
    measured = Calibration((exponential(1000),))
    scored = replace(match(0), strength=None, score=0.7)
    assert measured.rate("image", scored) == measured.rate("image", match(0.7))


# ---- kept in the home


def test_a_calibration_is_kept_as_json(tmp_path: Path) -> None:
    kept = Calibration((exponential(1000), replace(noise([1], 10), evidence="b_v1")), "my pictures", 500)
    path = calibrations.save(tmp_path / "home", kept)
    assert json.loads(path.read_text())["source"] == "my pictures"
    assert Calibration.from_json(path.read_text()) == kept


def test_the_users_own_noise_stands_before_the_shipped_one(tmp_path: Path) -> None:
    assert calibrations.load(tmp_path) == calibrations.shipped()
    calibrations.save(tmp_path, Calibration((noise([0.5], 77),), "mine", 123))
    loaded = calibrations.load(tmp_path)
    assert loaded.collection == 123
    assert loaded.rate("image", match(0.9)) == 1 / 78
    assert {each.evidence for each in loaded.noise} >= {each.evidence for each in calibrations.shipped().noise}


def test_a_calibration_that_changed_is_read_again(tmp_path: Path) -> None:
    for pairs in (77, 770):
        calibrations.save(tmp_path, Calibration((noise([0.5], pairs),), "mine"))
        loaded = calibrations.load(tmp_path)
        assert loaded.rate("image", match(0.9)) == 1 / (pairs + 1)
        assert calibrations.load(tmp_path) is loaded
    (tmp_path / calibrations.FILE).unlink()
    assert calibrations.load(tmp_path) == calibrations.shipped()


@pytest.mark.parametrize("text", ["", "{}", '{"format": 99, "source": "", "collection": 1, "noise": []}', "[1]"])
def test_a_file_that_is_no_calibration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / calibrations.FILE).write_text(text)
    with pytest.raises(UsageError, match=r"calibration\.json"):
        calibrations.load(tmp_path)


def test_only_the_strongest_noise_is_kept() -> None:
    assert strongest([0.0, 3.0, 1.00000049, -1.0]) == (3.0, 1.0)
    assert len(strongest(range(1, 10_000))) == KEPT
    assert strongest(range(1, 10_000))[0] == 9999


# ---- measuring


def picture(name: str, hashes: Sequence[np.ndarray], digest: str = "", quality: int = 100) -> Fingerprint:
    """A picture of which only PDQ hashes are known."""
    values = np.concatenate([np.stack(hashes), *[np.zeros((8 - len(hashes), 32), np.uint8)]])
    sketch = Sketch((Component("pdq_v1", "hamming", values),), {"quality": quality})
    return Fingerprint(Content(name, f"file:///{name}", "image"), digest or name, 1, "image/png", name, sketch)


@pytest.fixture
def pictures() -> list[Fingerprint]:
    random = np.random.default_rng(3)
    return [picture(f"p{n}", [random.integers(0, 256, 32, dtype=np.uint8)] * 8) for n in range(40)]


def test_every_pair_comes_once_whatever_the_order(pictures: list[Fingerprint]) -> None:
    for number in (2, 3, 9, 40):
        few = pictures[:number]
        pairs = [frozenset((q.digest, r.digest)) for q, r in pairs_of(few, few)]
        assert len(set(pairs)) == len(pairs) == number * (number - 1) // 2
        assert all(len(pair) == 2 for pair in pairs)
        backwards = few[::-1]
        assert [frozenset((q.digest, r.digest)) for q, r in pairs_of(backwards, backwards)] == pairs
    across = {(q.digest, r.digest) for q, r in pairs_of(pictures[:3], pictures[3:8])}
    assert len(across) == 15


def test_the_noise_is_what_the_content_type_says_of_unrelated_pairs(pictures: list[Fingerprint]) -> None:
    (measured,) = [each for each in measure(pictures, source="here").calibration.noise if each.evidence == "pdq_v1"]
    assert (measured.contents, measured.pairs, measured.matched) == (40, 780, 0)
    distances = [
        int(np.bitwise_count(a.sketch.components[0].values[0] ^ b.sketch.components[0].values[0]).sum())
        for a, b in pairs_of(pictures, pictures)
    ]
    assert measured.strongest == strongest(1 - np.array(distances) / 256)


def test_no_more_pairs_are_compared_than_asked(pictures: list[Fingerprint]) -> None:
    assert {each.pairs for each in measure(pictures, source="here", pairs=100).calibration.noise} == {100}


class Said:
    """What people said of the pair p0 and its copy."""

    def __init__(self, verdict: str | None) -> None:
        self.said = verdict

    def verdict(self, one: Fingerprint, other: Fingerprint) -> str | None:
        return self.said if {one.content.content_id, other.content.content_id} == {"p0", "copy"} else None


@pytest.mark.parametrize(
    ("verdict", "unrelated", "pairs", "matched"),
    [(None, False, 819, 0), (None, True, 820, 1), ("different", False, 820, 1), ("same", True, 819, 0)],
)
def test_copies_are_no_noise_unless_they_are_known_to_be_unrelated(
    pictures: list[Fingerprint], verdict: str | None, unrelated: bool, pairs: int, matched: int
) -> None:
    copy = replace(pictures[0], content=Content("copy", "file:///copy", "image"), digest="copy")
    measured = measure([*pictures, copy], source="here", unrelated=unrelated, verdicts=Said(verdict))
    (pdq,) = [each for each in measured.calibration.noise if each.evidence == "pdq_v1"]
    assert (pdq.pairs, pdq.matched) == (pairs, matched)
    assert len(measured.matched) == (0 if verdict == "same" else 1)


def test_equal_bytes_and_pairs_left_out_are_not_compared(pictures: list[Fingerprint]) -> None:
    twin = replace(pictures[0], content=Content("twin", "file:///twin", "image"))
    measured = measure([*pictures, twin], source="here", unrelated=True)
    assert not measured.matched
    none = measure(pictures, source="here", leave_out=lambda query, reference: True)
    assert none.calibration.noise == ()


def test_types_that_cannot_be_compared_are_not() -> None:
    assert comparing("image", "text") is None
    assert comparing("text", "text") is content_type("text")


# ---- the shipped calibration


@pytest.mark.parametrize(
    ("kind", "evidence"),
    [
        ("image", "pdq_v1"),
        ("image", "local_features_v1"),
        ("text", "text_containment_v1"),
        ("text", "text_similarity_v1"),
        ("text", "minhash_v2"),
        ("video", "frame_sequence_v1"),
    ],
)
def test_fewer_than_one_unrelated_pair_in_20000_reaches_a_threshold(kind: str, evidence: str) -> None:
    least = content_type(kind).thresholds[evidence]
    found = match(least, evidence, kind)
    rate = calibrations.shipped().rate(kind, found)
    assert rate is not None
    assert rate < 5e-5


def test_the_shipped_calibration_is_small() -> None:
    path = Path(calibrations.__file__).parent / "shipped.json"
    assert path.stat().st_size < 200_000


# ---- the command


def calibrate(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["calibrate", *map(str, arguments)])


def test_the_command_shows_the_shipped_calibration(home: Path) -> None:
    shown = calibrate()
    assert shown.exit_code == 0
    assert "pdq_v1" in shown.output
    told = json.loads(calibrate("--json", "--rate", 1e-3).output)
    assert {each["evidence"] for each in told["evidence"]} >= {"pdq_v1", "minhash_v2"}
    assert {threshold["rate"] for each in told["evidence"] for threshold in each["thresholds"]} == {1e-3}
    assert not (home / calibrations.FILE).exists()


@pytest.mark.slow
def test_the_command_measures_a_folder_and_goes_by_it_until_it_is_reset(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    random = np.random.default_rng(5)
    texts = [" ".join(f"w{word}" for word in random.integers(0, 10_000, 200)) for _ in range(12)]
    for number, text in enumerate([*texts, texts[0] + " and more"]):
        (folder / f"{number}.txt").write_text(text)
    done = calibrate(folder)
    assert done.exit_code == 0
    assert "1 pairs match and were taken for copies and left out" in done.output
    told = json.loads(calibrate("--json").output)
    assert told["source"] == f"13 contents of {folder}"
    (minhash,) = [each for each in told["evidence"] if each["evidence"] == "minhash_v2"]
    assert (minhash["contents"], minhash["pairs"]) == (13, 13 * 12 // 2 - 1)
    assert calibrate("--reset").exit_code == 0
    assert calibrations.load(home) == calibrations.shipped()


def test_two_ways_at_once_or_nothing_to_compare_is_a_mistake(home: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (["--stored", "--reset"], ["--stored"]):
        done = calibrate(*arguments)
        assert isinstance(done.exception, UsageError)
