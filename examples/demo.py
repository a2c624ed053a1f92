"""The demo: real pictures, sound, video and text, edited copies of them, and what the system finds.

Run by `make demo`. Everything it makes lies in the folder .demo; run again, it goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from rich import box
from rich.console import Console
from rich.table import Table

FACTS = ("content_id", "uri", "content_type", "digest", "size", "media_type", "key", "metadata", "info")
CONSOLE = Console(width=max(160, Console().width))
DEMO = Path(".demo")
ORIGINALS = DEMO / "media" / "originals"
COPIES = DEMO / "media" / "copies"
PICTURES = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
            "retina.jpg", "rocket.jpg")  # fmt: skip


def main() -> None:
    """Make the media, fingerprint them with the main job, and ask for every copy what it is a copy of."""
    make_media()
    environment = os.environ | {"FINGERPRINT_HOME": str((DEMO / "home").absolute())}
    command = [sys.executable, "-m", "fingerprint_dagster"]
    subprocess.run([*command, "run", str(ORIGINALS), str(COPIES)], env=environment, check=True)
    table = DEMO / "fingerprints.parquet"
    subprocess.run([*command, "export", str(table)], env=environment, check=True, stdout=subprocess.DEVNULL)
    show_fingerprints(pd.read_parquet(table))
    answers = subprocess.run(
        [*command, "query", str(COPIES), "--top", "1", "--json"], env=environment, check=False, capture_output=True
    )
    sys.stderr.buffer.write(answers.stderr)
    show_copies([json.loads(line) for line in answers.stdout.splitlines()])
    print_next_steps()


def make_media() -> None:
    """Real media from two packages, and edited copies of them."""
    import iscc_samples
    import skimage

    ORIGINALS.mkdir(parents=True, exist_ok=True)
    COPIES.mkdir(parents=True, exist_ok=True)
    pictures = Path(skimage.__file__).parent / "data"
    samples = Path(iscc_samples.__file__).parent / "files"
    for source in [pictures / name for name in PICTURES] + [
        samples / "audio" / "demo.mp3",
        samples / "video" / "demo.mp4",
        samples / "text" / "demo.txt",
        samples / "text" / "demo.md",
    ]:
        _once(ORIGINALS / source.name, lambda target, source=source: shutil.copy(source, target))

    _picture("astronaut, JPEG quality 20.jpg", "astronaut.png", lambda image: image, quality=20)
    _picture("chelsea, a third of the size.webp", "chelsea.png", lambda image: ImageOps.scale(image, 1 / 3))
    _picture("coffee, grey.png", "coffee.png", lambda image: image.convert("L"))
    _picture("rocket, mirrored.jpg", "rocket.jpg", ImageOps.mirror)
    _picture("retina, darker.jpg", "retina.jpg", lambda image: image.point(lambda value: int(value * 0.7)))
    _picture("motorcycle, a quarter of it.jpg", "motorcycle_left.png", _middle)
    with Image.open(pictures / "brick.png") as bricks:
        _picture("astronaut on a wall, turned.jpg", "astronaut.png", lambda image: _paste(image, bricks.convert("RGB")))
    _once(COPIES / "10 seconds of the song.opus", lambda target: _excerpt_audio("demo.mp3", target, 4.0, 14.0))
    _once(
        COPIES / "10 seconds, 6 % faster, in noise.opus",
        lambda target: _excerpt_audio("demo.mp3", target, 3.0, 13.6, speed=1.06, noise=0.1),
    )
    _once(COPIES / "20 seconds of the film, small.mp4", lambda target: _excerpt_video("demo.mp4", target, 15.0, 35.0))
    _once(COPIES / "the text, words changed.txt", _edit_text)
    _once(COPIES / "an article that quotes the text.txt", _quote_text)
    _once(COPIES / "a broken picture.jpg", lambda target: target.write_bytes(b"\xff\xd8\xff\xe0 cut off"))


def _once(target: Path, make: Callable[[Path], object]) -> None:
    """Make a file unless it is there, so that the demo is quick the second time and nothing looks changed."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}")
        make(temporary)
        temporary.replace(target)


def _picture(name: str, original: str, edit: Callable[[Image.Image], Image.Image], *, quality: int = 85) -> None:
    def make(target: Path) -> None:
        with Image.open(ORIGINALS / original) as image:
            edit(image.convert("RGB")).save(
                target, format=Image.registered_extensions()[target.suffix], quality=quality
            )

    _once(COPIES / name, make)


def _middle(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 4, height // 4, width * 3 // 4, height * 3 // 4))


def _paste(image: Image.Image, onto: Image.Image) -> Image.Image:
    turned = image.resize((330, 330)).rotate(8, expand=True, fillcolor="white")
    wall = onto.resize((700, 500))
    wall.paste(turned, (60, 40))
    return wall


def _excerpt_audio(
    original: str, target: Path, start: float, end: float, *, speed: float = 1.0, noise: float = 0.0
) -> None:
    with av.open(str(ORIGINALS / original)) as source:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=48000)
        kept = (frame for frame in source.decode(audio=0) if frame.time is not None and start <= frame.time < end)
        sound = np.concatenate([piece.to_ndarray()[0] for frame in kept for piece in resampler.resample(frame)])
    sound = np.interp(np.arange(0, len(sound) - 1, speed), np.arange(len(sound)), sound)
    sound += np.random.default_rng(1).normal(0, noise * np.abs(sound).max(), len(sound))
    frame = av.AudioFrame.from_ndarray(sound.clip(-1, 1).astype(np.float32)[np.newaxis], format="flt", layout="mono")
    frame.rate = 48000
    with av.open(str(target), "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=48000, layout="mono", bit_rate=48_000)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _excerpt_video(original: str, target: Path, start: float, end: float) -> None:
    with av.open(str(ORIGINALS / original)) as source, av.open(str(target), "w", format="mp4") as out:
        rate = source.streams.video[0].average_rate
        stream = out.add_stream("libx264", rate=rate, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        kept = (frame for frame in source.decode(video=0) if frame.time is not None and start <= frame.time < end)
        for number, frame in enumerate(kept):
            small = frame.reformat(320, 180, "yuv420p")
            small.pts, small.time_base = number, 1 / rate
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))


def _edit_text(target: Path) -> None:
    words = (ORIGINALS / "demo.txt").read_text(encoding="utf-8").split()
    changed = np.random.default_rng(1).choice(len(words), len(words) // 50, replace=False)
    for index in changed:
        words[index] = words[index].upper() + "x"
    target.write_text(" ".join(words), encoding="utf-8")


def _quote_text(target: Path) -> None:
    quoted = (ORIGINALS / "demo.txt").read_text(encoding="utf-8").split()[100:200]
    around = Path(__file__).read_text(encoding="utf-8").splitlines()
    target.write_text("\n".join([*around[:60], " ".join(quoted), *around[60:120]]), encoding="utf-8")


def show_fingerprints(frame: pd.DataFrame) -> None:
    """A table of what was fingerprinted: for each content, the rows that each algorithm made of it."""
    table = Table("type", "content", "bytes", box=box.SIMPLE_HEAD)
    table.add_column("fingerprint", no_wrap=True, overflow="ellipsis", max_width=100)
    for row in frame.sort_values(["content_type", "uri"]).to_dict("records"):
        components = {name: cell for name, cell in row.items() if name not in FACTS and cell is not None}
        described = ", ".join(f"{name} x {len(cell)}" for name, cell in components.items())
        table.add_row(row["content_type"], _name(row["uri"]), str(row["size"]), described)
    CONSOLE.print(table)


def show_copies(answers: list[dict[str, object]]) -> None:
    """A table of every copy: what it is a copy of, how sure, and where."""
    table = Table(
        "copy", "is a copy of", "score", "sure", "where in the copy", "where in the original", "by", box=box.SIMPLE_HEAD
    )
    for answer in answers:
        name = _name(str(answer["query"]))
        for match in answer["matches"]:  # type: ignore[attr-defined]
            table.add_row(
                name,
                _name(match["uri"]),
                f"{match['score']:.3f}",
                "" if match["confidence"] is None else f"{match['confidence']:.4f}",
                _where(match["query_range"] or match["query_box"], match["content_type"]),
                _where(match["reference_range"] or match["reference_box"], match["content_type"]),
                match["evidence"],
            )
        if not answer["matches"]:
            error = answer.get("error")
            reason = error["reason"] if isinstance(error, dict) else "no copy found"
            table.add_row(name, f"[yellow]{reason}[/]", "", "", "", "", "")
    CONSOLE.print(table)


def _name(uri: str) -> str:
    from fingerprint_dagster.sources.uri import file_path

    return file_path(uri).name


def _where(span: list[float] | None, content_type: str) -> str:
    if span is None:
        return "all of it"
    if len(span) == 4:
        left, top, right, bottom = (100 * side for side in span)
        return f"{left:.0f}-{right:.0f} % across, {top:.0f}-{bottom:.0f} % down"
    return f"{span[0]:.0f}-{span[1]:.0f} characters" if content_type == "text" else f"{span[0]:.1f}-{span[1]:.1f} s"


def print_next_steps() -> None:
    """Where everything lies, and how to go on."""
    home = DEMO / "home"
    CONSOLE.print(
        f"Fingerprints: {home / 'index'}   stage results: {home / 'memo'}   Dagster runs: {home / 'dagster'}\n"
        f"Open the Dagster UI on them:  make ui   (then http://127.0.0.1:3000)\n"
        f"Ask about a file of yours:    FINGERPRINT_HOME={home} .venv/bin/fingerprint query FILE",
        highlight=False,
    )


if __name__ == "__main__":
    main()
