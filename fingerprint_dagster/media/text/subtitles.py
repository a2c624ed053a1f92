"""Subtitles: SubRip (.srt) and WebVTT (.vtt), what is spoken and when."""

from __future__ import annotations

import html
import re
from itertools import takewhile

import numpy as np
import numpy.typing as npt

_TIME = r"(?:(\d{1,3}):)?(\d\d):(\d\d)[,.](\d{1,3})"
_CUE = re.compile(rf"^[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}[^\n]*\n", re.MULTILINE)
_SRT = re.compile(rf"\ufeff?\s*\d+[ \t]*\r?\n[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}")
_VTT = re.compile(r"\ufeff?WEBVTT(?:[ \t\r\n]|\Z)")
_STYLE = re.compile(r"</?[a-zA-Z0-9][^<>\n]*>|\{\\[^{}\n]*\}")  # <i>, <c.loud>, <00:19.000>, {\an8}


def sniff(text: str) -> str | None:
    """`text/vtt` or `application/x-subrip` if the text begins like one, else None."""
    if _VTT.match(text):
        return "text/vtt"
    return "application/x-subrip" if _SRT.match(text) else None


def subtitle_text(text: str) -> tuple[str, npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """What is spoken, one line a line of a cue: (text, starts, times), without numbers, times and styles.

    starts: int32 [cues], where each cue begins in the text. times: float64 [cues, 2], its start and end in seconds.
    A line that only repeats the one before is left out: captions that roll up show every line two or three times.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    cues = list(_CUE.finditer(text))
    lines: list[str] = []
    starts: list[int] = []
    times: list[tuple[float, float]] = []
    position = 0
    ends = [*(cue.start() for cue in cues), len(text)][1:]
    for cue, end in zip(cues, ends, strict=True):
        groups = cue.groups()
        starts.append(position)
        times.append((_seconds(groups[:4]), _seconds(groups[4:])))
        for line in takewhile(str.strip, text[cue.end() : end].split("\n")):  # what follows is the next cue's number
            spoken = html.unescape(_STYLE.sub("", line)).strip()
            if spoken and lines[-1:] != [spoken]:
                lines.append(spoken)
                position += len(spoken) + 1
    return "\n".join(lines), np.array(starts, np.int32), np.array(times, np.float64).reshape(-1, 2)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction}")
