"""Self-contained HTML pages: sounds to listen to with one switch, pictures under the same clock, and tables. They ask
nothing of a network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import soundfile

from .spectrogram import FLOOR_DB, level_db

_TEMPLATE = Path(__file__).with_name("page.html")
_TICKS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)


@dataclass(frozen=True)
class Lane:
    """Values (K, M) in 0..1 over bands, lowest first, and time; `by_band` (K,) is drawn as bars beside it."""

    caption: str
    values: np.ndarray
    by_band: np.ndarray


def make_page(title: str, body: Sequence[str]) -> str:
    """The whole page. `title` is plain text, the parts of the body are HTML as the functions here make it."""
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(body))


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], verdicts: Sequence[str] = ()) -> str:
    """Plain text cells; `verdicts`, one a row, "better", "worse" or "", colour the last cell."""
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = []
    for number, (first, *middle, last) in enumerate(rows):
        verdict = verdicts[number] if verdicts else ""
        cells = [f"<td>{html.escape(cell)}</td>" for cell in middle]
        cells.append(f'<td class="{verdict}">{html.escape(last)}</td>')
        lines.append(f'<tr><th scope="row">{html.escape(first)}</th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def listener(
    sounds: Mapping[str, np.ndarray],
    sample_rate: int,
    *,
    heading: str = "",
    lanes: Sequence[Lane] = (),
    tempo_bpm: float | None = None,
) -> str:
    """A section with a switch between sounds (C, T) by name, a spectrogram of each, and lanes below them; more than two
    channels are heard as their mean."""
    levels = {name: level_db(sound.mean(axis=0)) for name, sound in sounds.items()}
    top_db = max(float(level.max()) for level in levels.values())
    seconds = max(sound.shape[1] for sound in sounds.values()) / sample_rate
    buttons, players, pictures = [], [], []
    for number, (name, sound) in enumerate(sounds.items()):
        label, first = html.escape(name), number == 0
        if len(sounds) > 1:
            buttons.append(f'<button type="button" class="pick" aria-pressed="{str(first).lower()}">{label}</button>')
        players.append(f'<audio preload="auto" src="data:audio/flac;base64,{_flac(sound, sample_rate)}"></audio>')
        shown = _frame(_png(_smaller(levels[name] - top_db), "magma", FLOOR_DB, 0.0), f"Spectrogram, {label}")
        pictures.append(f"<figure><figcaption>{label}</figcaption>{shown}</figure>")
    for lane in lanes:
        caption = html.escape(lane.caption)
        shown = _frame(_png(_smaller(lane.values), "viridis", 0.0, 1.0), caption)
        pictures.append(f'<figure class="lane"><figcaption>{caption}</figcaption>{shown}{_bars(lane.by_band)}</figure>')
    keys = "Keys: space plays and pauses" + (
        f", {', '.join(str(n + 1) for n in range(len(sounds)))} choose; the switch keeps the position."
        if len(sounds) > 1
        else "; a click in a picture goes there."
    )
    head = f"<h2>{html.escape(heading)}</h2>" if heading else ""
    return "\n".join(
        (
            f'<section class="listen{" lanes" if lanes else ""}">',
            head,
            '<div class="bar">',
            '<button type="button" class="play" aria-label="Play or pause">Play</button>',
            *buttons,
            '<input type="range" class="place" min="0" max="1" step="0.01" value="0" aria-label="Position in seconds">',
            '<span class="clock">0:00</span>',
            "</div>",
            *players,
            *pictures,
            _ruler(seconds, tempo_bpm),
            f"<p>{keys} Spectrograms from 0 to {sample_rate / 2000:.4g} kHz, all on one colour scale.</p>",
            "</section>",
        )
    )


def _ruler(seconds: float, tempo_bpm: float | None) -> str:
    """Ticks in minutes:seconds, or in bars of 4/4."""
    if tempo_bpm is None:
        step = next((tick for tick in _TICKS_S if seconds / tick <= 8), _TICKS_S[-1])
        ticks = [(f"{int(s // 60)}:{int(s % 60):02d}", s) for s in np.arange(0, seconds, step)]
    else:
        bar_s = 240.0 / tempo_bpm
        every = next(n for n in (1 << k for k in range(40)) if seconds / (n * bar_s) <= 8)
        ticks = [(f"bar {1 + n}", n * bar_s) for n in range(0, int(seconds / bar_s) + 1, every)]
    spans = "".join(f'<span style="left:{100 * s / seconds:.2f}%">{text}</span>' for text, s in ticks if s < seconds)
    return f'<div class="ruler" aria-hidden="true">{spans}</div>'


def _frame(png: str, alternative: str) -> str:
    return f'<div class="frame"><img alt="{alternative}" src="data:image/png;base64,{png}"><i class="now"></i></div>'


def _bars(values: np.ndarray) -> str:
    """Horizontal bars, the lowest band at the bottom."""
    count = len(values)
    bars = "".join(
        f'<rect x="0" y="{count - 1 - k}" width="{100 * float(np.clip(value, 0, 1)):.1f}" height="0.9"/>'
        for k, value in enumerate(values)
    )
    return f'<svg viewBox="0 0 100 {count}" preserveAspectRatio="none" aria-label="Amount by frequency">{bars}</svg>'


def _flac(sound: np.ndarray, sample_rate: int) -> str:
    """16-bit FLAC in base64; a peak over full scale brings the whole sound down."""
    audio = sound if len(sound) <= 2 else sound.mean(axis=0, keepdims=True)
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    out = io.BytesIO()
    soundfile.write(out, audio.T, sample_rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode()


def _smaller(values: np.ndarray) -> np.ndarray:
    """At most 512 rows and 1600 columns of (F, N); of values that share a place the largest is shown."""
    for axis, most in ((1, 1600), (0, 512)):
        if not values.shape[axis]:
            return np.zeros((1, 1))
        each = -(-values.shape[axis] // most)
        values = np.maximum.reduceat(values, np.arange(0, values.shape[axis], each), axis=axis)
    return values


def _png(values: np.ndarray, colours: str, low: float, high: float) -> str:
    """A picture of (F, N) without axes, lowest row at the bottom, in base64."""
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, values, cmap=colours, vmin=low, vmax=high, origin="lower", format="png")
    return base64.b64encode(out.getvalue()).decode()
