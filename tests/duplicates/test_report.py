"""One HTML file that needs nothing else, and in which nothing from names and texts is taken for code."""

import base64
import hashlib
import io
import json
import re
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_files import picture, sample
from PIL import Image
from resiliparse.parse.html import HTMLTree

from fingerprint_dagster.content import Content, Fingerprint, Match, Sketch
from fingerprint_dagster.duplicates import previews, report
from fingerprint_dagster.duplicates.decisions import FORMAT, Decision, read_decisions
from fingerprint_dagster.duplicates.findings import Findings, find
from fingerprint_dagster.duplicates.keep import best_first
from fingerprint_dagster.duplicates.pairs import Pair, Pairs
from fingerprint_dagster.errors import UsageError
from fingerprint_dagster.index.exact import ExactStore
from fingerprint_dagster.pipeline import Pipeline
from fingerprint_dagster.settings import Settings

HOSTILE = '</script><img src=x onerror=alert(1)> & "quoted" \'; \u202ecod.exe'
PASSAGE = "The quick brown fox jumps over the lazy dog, </script><script>alert(2)</script> said nobody at all."


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with Pipeline.from_settings(Settings(home=tmp_path_factory.mktemp("home"), workers=1)) as pipeline:
        yield pipeline


def stored(path: Path, content_type: str, content_id: str = "", **info: Any) -> Fingerprint:
    data = path.read_bytes()
    content = Content(content_id or path.name, path.as_uri(), content_type)
    return Fingerprint(content, hashlib.sha256(data).hexdigest(), len(data), "x/y", f"k {path}", Sketch((), info))


def findings_of(home: Path, *pairs: Pair, decisions: list[Decision] | None = None) -> Findings:
    known = Pairs(home, "store")
    known.take_in([[each for pair in pairs for each in (pair.one, pair.other)]])
    known.record(found=pairs)
    return find(ExactStore(), known, decisions or [], best_first("largest"))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """A pair of each content type."""
    folder = tmp_path_factory.mktemp("media")
    Image.open(picture("coffee.png")).crop((100, 100, 400, 300)).save(folder / "crop.png")
    with wave.open(str(folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 11025, 0, "NONE", ""))
        ramp = np.sin(np.cumsum(np.linspace(0.05, 1.5, 11025 * 8))) * 20000
        file.writeframes(ramp.astype("<i2").tobytes())
    (folder / "one.txt").write_text(f"Something else comes before it. {PASSAGE}")
    (folder / "other.txt").write_text(PASSAGE.replace("brown", "red"))
    whole, part = stored(picture("coffee.png"), "image", width=600, height=400), stored(folder / "crop.png", "image")
    tone, again = (stored(folder / "tone.wav", "audio", name, duration=8.0) for name in ("tone", "again"))
    film, copy = (stored(sample("video/demo.3gp"), "video", name, duration=60.0) for name in ("film", "copy"))
    one, other = stored(folder / "one.txt", "text", characters=130), stored(folder / "other.txt", "text", characters=98)
    boxes = {"query_box": (0.0, 0.0, 1.0, 1.0), "reference_box": (0.17, 0.25, 0.67, 0.75)}
    ranges = {"query_range": (32.0, 32.0 + len(PASSAGE)), "reference_range": (0.0, len(PASSAGE) - 2.0)}
    return {
        "image": Pair(
            part, whole, "part_of", (Match(whole.content, 0.9, "local_features_v1", confidence=1.0, **boxes),)
        ),
        "audio": Pair(tone, again, "copy", (Match(again.content, 0.8, "chromaprint_v1", (0.0, 8.0), (0.0, 8.0)),)),
        "video": Pair(film, copy, "copy", (Match(copy.content, 0.7, "pdq_v1", (1.0, 60.0), (1.0, 60.0)),)),
        "text": Pair(one, other, "contains", (Match(other.content, 0.6, "text_containment_v1", **ranges),)),
    }


def opened(path: Path) -> tuple[HTMLTree, dict[str, Any]]:
    """The document as a browser sees it, and the data in it."""
    tree = HTMLTree.parse(path.read_text(encoding="utf-8"))
    return tree, json.loads(tree.document.get_element_by_id("data").text)


def pictures_in(tree: HTMLTree) -> list[Image.Image]:
    found = []
    for script in tree.document.get_elements_by_tag_name("script"):
        if (script.getattr("id") or "").startswith("previews-"):
            for uri in json.loads(script.text):
                kind, data = uri.split(",", 1)
                assert kind == "data:image/webp;base64"
                found.append(Image.open(io.BytesIO(base64.b64decode(data))))
    return found


def test_every_content_type_is_shown(media, pipeline, tmp_path):
    out = tmp_path / "report.html"
    written = report.write_report(findings_of(tmp_path, *media.values()), pipeline, out)
    assert (written.pairs, written.left_out) == (4, 0)
    tree, data = opened(out)
    sizes = [each.size for each in pictures_in(tree)]
    assert (176, 117) in sizes  # the picture of three to two
    assert sizes.count((360, 54)) == 4  # two films, two sounds
    assert {row[4] for row in data["contents"]} == {"image", "audio", "video", "text"}
    assert out.stat().st_size < 200_000
    by_relation = {row[2]: row for row in data["pairs"]}
    (match,) = by_relation["part_of"][6]
    assert match[3] == [[0.0, 0.0, 1.0, 1.0], [0.17, 0.25, 0.67, 0.75]]
    one, other = by_relation["contains"][6][0][4]
    assert ["brown ", previews.CHANGED] in one
    assert ["red ", previews.CHANGED] in other
    assert one[0] == ["Something else comes before it. ", previews.AROUND]


def test_nothing_in_the_file_is_loaded_or_run_but_its_own_script_and_style(media, pipeline, tmp_path):
    out = tmp_path / "report.html"
    report.write_report(findings_of(tmp_path, *media.values()), pipeline, out)
    tree, _ = opened(out)
    (policy,) = (
        meta.getattr("content")
        for meta in tree.document.get_elements_by_tag_name("meta")
        if meta.getattr("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (code,) = (each for each in tree.document.get_elements_by_tag_name(tag) if not each.getattr("type"))
        digest = base64.b64encode(hashlib.sha256(code.text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert not re.search(r"(?:src|href)=[\"']?(?!data:)", out.read_text().split("</style>")[1].split("<script")[0])


def test_hostile_names_and_texts_are_only_data(media, pipeline, tmp_path):
    text = media["text"]
    named = Fingerprint(
        Content(HOSTILE, f"https://example.org/{HOSTILE}", "text"), text.one.digest, 1, HOSTILE, "k", text.one.sketch
    )
    elsewhere = Fingerprint(Content("script", "javascript:alert(3)", "text"), "d", 1, "x/y", "k", text.one.sketch)
    pairs = [
        text,
        Pair(named, text.other, "copy", (Match(text.other.content, 0.5, HOSTILE, confidence=0.5),)),
        Pair(named, elsewhere, "copy", (Match(elsewhere.content, 0.4, "x_v1", confidence=0.5),)),
    ]
    out = tmp_path / "report.html"
    report.write_report(findings_of(tmp_path, *pairs), pipeline, out)
    tree, data = opened(out)
    assert HOSTILE in [row[0] for row in data["contents"]]
    assert HOSTILE in data["evidences"]
    assert not any("\u202e" in row[2] for row in data["contents"])  # a name is shown without what turns it round
    assert not tree.document.get_elements_by_tag_name("img")
    scripts = tree.document.get_elements_by_tag_name("script")
    assert len([each for each in scripts if not each.getattr("type")]) == 1
    names = {each.tag for each in tree.document.query_selector_all("*")}
    plain = tmp_path / "plain.html"
    report.write_report(findings_of(tmp_path / "plain", media["text"]), pipeline, plain)
    assert names == {each.tag for each in opened(plain)[0].document.query_selector_all("*")}


def test_a_content_in_many_pairs_has_one_picture(media, pipeline, tmp_path):
    whole = media["image"].other
    others = [
        Fingerprint(Content(f"{n}", whole.content.uri, "image"), "gone", 1, "x/y", "k", Sketch(())) for n in range(5)
    ]
    pairs = [Pair(each, whole, "copy", (Match(whole.content, 0.9, "pdq_v1"),)) for each in others]
    out = tmp_path / "report.html"
    report.write_report(findings_of(tmp_path, *pairs), pipeline, out)
    tree, data = opened(out)
    assert len(pictures_in(tree)) == 1
    assert sorted(row[8] for row in data["contents"]) == [-1] * 5 + [0]  # of bytes that are gone there is no picture


def test_the_surest_pairs_are_shown_where_there_are_too_many(media, pipeline, tmp_path):
    text = media["text"]
    others = [Fingerprint(Content(f"{n}", f"file:///{n}", "text"), f"{n}", 1, "x/y", "k", Sketch(())) for n in range(6)]
    pairs = [
        Pair(each, text.one, "overlap", (Match(text.one.content, 0.5, "x_v1", confidence=n / 10),))
        for n, each in enumerate(others)
    ]
    out = tmp_path / "report.html"
    written = report.write_report(findings_of(tmp_path, *pairs), pipeline, out, most=2)
    assert (written.pairs, written.left_out) == (2, 4)
    _, data = opened(out)
    assert [row[4] for row in data["pairs"]] == [0.5, 0.4]
    assert "4 less sure pairs are left out" in data["summary"]


def test_decisions_are_shown_and_what_it_exports_can_be_imported(media, pipeline, tmp_path):
    pair = media["image"]
    out = tmp_path / "report.html"
    report.write_report(
        findings_of(tmp_path, pair, decisions=[Decision.of("same", pair.one, pair.other)]), pipeline, out
    )
    _, data = opened(out)
    assert [row[5] for row in data["pairs"]] == [1]
    one, other = (data["contents"][index] for index in data["pairs"][0][:2])
    entry = {"one": one[0], "other": other[0], "one_digest": one[5], "other_digest": other[5], "verdict": "different"}
    (tmp_path / "decisions.json").write_text(json.dumps({"format": data["format"], "decisions": [entry]}))
    assert data["format"] == FORMAT
    (decision,), _ = read_decisions(tmp_path / "decisions.json")
    assert decision.holds_for(
        *(each.digest for each in sorted((pair.one, pair.other), key=lambda f: f.content.content_id))
    )


def test_no_pairs_are_a_report_that_says_so(pipeline, tmp_path):
    out = tmp_path / "reports" / "report.html"
    report.write_report(findings_of(tmp_path), pipeline, out)
    _, data = opened(out)
    assert data["pairs"] == data["clusters"] == []
    assert data["summary"].startswith("0 pairs, 0 clusters")


def test_a_report_that_cannot_be_written_is_named(pipeline, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        report.write_report(findings_of(tmp_path), pipeline, tmp_path / "file" / "report.html")


def test_a_spectrogram_shows_pitch_over_time():
    """A tone that rises for eight seconds is bright at the bottom left and at the top right."""
    seconds = np.arange(8 * 11025) / 11025
    rising = np.sin(2 * np.pi * np.cumsum(np.geomspace(100, 4000, len(seconds))) / 11025)
    shown = previews.spectrogram(rising, 11025)[:, :, 0]
    height, width = shown.shape
    brightest = shown.argmax(axis=0)
    assert (width, height) == previews.STRIP
    assert brightest[5] > 0.8 * height
    assert brightest[width - 5] < 0.2 * height
    assert not previews.spectrogram(np.zeros(50, np.int16), 11025).any()


def test_a_word_of_a_script_without_spaces_is_a_letter():
    one, other = previews.compared(("", "春天来了", ""), ("", "秋天来了", ""))
    assert one == [("春", previews.CHANGED), ("天来了", previews.SAME)]
    assert other == [("秋", previews.CHANGED), ("天来了", previews.SAME)]


def test_what_lies_beyond_a_cut_is_not_called_changed():
    long = " ".join(f"word{number}" for number in range(300))
    one, other = previews.cut(long, (0, len(long))), previews.cut(f"ahead {long}", (6, 6 + len(long)))
    marked, other_marked = previews.compared(one, other)
    assert marked[0][1] == previews.SAME
    assert {kind for _, kind in [*marked, *other_marked]} == {previews.SAME, previews.AROUND}
    assert previews.plain(("a ", "b", " c"), ("", "d", "")) == ([("a b c", 0)], [("d", 0)])
