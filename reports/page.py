"""Self-contained HTML pages: audio players that switch between versions, spectrograms in step with them, and tables.

The pages load nothing from the network.
"""

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
    """A map below the spectrograms. values (K, M): 0..1 over bands, lowest first, and time. by_band (K,): drawn as bars
    next to it."""

    caption: str
    values: np.ndarray
    by_band: np.ndarray


def make_page(title: str, body: Sequence[str]) -> str:
    """The whole page. title: plain text. body: HTML parts made by the functions of this module."""
    template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(body))


class Markup(str):
    """Text that is HTML already."""


def link(text: str, address: str) -> Markup:
    """Plain text that leads to an address."""
    return Markup(f'<a href="{html.escape(address)}">{html.escape(text)}</a>')


def heading(text: str, level: int = 2) -> str:
    """Plain text as a heading."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def code(text: str) -> str:
    """Plain text to copy, as a command line."""
    return f'<pre class="wide"><code>{html.escape(text)}</code></pre>'


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], verdicts: Sequence[str] = (), *, of_words: bool = False
) -> str:
    """A table of cells, plain text or `Markup`. verdicts: "better", "worse" or "" for each row, colours its last cell.
    of_words: the cells hold text rather than numbers."""
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = []
    for number, (first, *middle, last) in enumerate(rows):
        verdict = verdicts[number] if verdicts else ""
        cells = [f"<td>{_cell(cell)}</td>" for cell in middle]
        cells.append(f'<td class="{verdict}">{_cell(last)}</td>')
        lines.append(f'<tr><th scope="row">{_cell(first)}</th>{"".join(cells)}</tr>')
    body = "\n".join(lines)
    kind = ' class="words"' if of_words else ""
    return (
        f'<div class="wide"><table{kind}>\n<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'
    )


def _cell(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)


def player_section(
    signals: Mapping[str, np.ndarray],
    sample_rate: int,
    *,
    title: str = "",
    lanes: Sequence[Lane] = (),
    tempo_bpm: float | None = None,
) -> str:
    """A section that plays signals (C, T) by label, with buttons to switch, their spectrograms, and lanes below them.

    Signals with more than two channels are played as a mono downmix. tempo_bpm: number bars of 4/4, not seconds.
    """
    levels = {name: level_db(signal.mean(axis=0)) for name, signal in signals.items()}
    top_db = max(float(level.max()) for level in levels.values())
    seconds = max(signal.shape[1] for signal in signals.values()) / sample_rate
    buttons, players, figures = [], [], []
    for number, (name, signal) in enumerate(signals.items()):
        label, first = html.escape(name), number == 0
        if len(signals) > 1:
            buttons.append(f'<button type="button" class="pick" aria-pressed="{str(first).lower()}">{label}</button>')
        players.append(f'<audio preload="auto" src="data:audio/flac;base64,{_flac(signal, sample_rate)}"></audio>')
        image = _frame(_png(_shrunk(levels[name] - top_db), "magma", FLOOR_DB, 0.0), f"Spectrogram, {label}")
        figures.append(f"<figure><figcaption>{label}</figcaption>{image}</figure>")
    for lane in lanes:
        caption = html.escape(lane.caption)
        image = _frame(_png(_shrunk(lane.values), "viridis", 0.0, 1.0), caption)
        figures.append(f'<figure class="lane"><figcaption>{caption}</figcaption>{image}{_bars(lane.by_band)}</figure>')
    keys = "Press space to play or pause"
    if len(signals) > 1:
        digits = "1 or 2" if len(signals) == 2 else f"1 to {len(signals)}"
        keys += f", {digits} to switch. Switching keeps the position"
    head = heading(title) if title else ""
    return "\n".join(
        (
            f'<section class="player{" lanes" if lanes else ""}">',
            head,
            '<div class="bar">',
            '<button type="button" class="play" aria-label="Play or pause">Play</button>',
            *buttons,
            '<input type="range" class="position" min="0" max="1" step="0.01" value="0" '
            'aria-label="Position in seconds">',
            '<span class="clock">0:00</span>',
            "</div>",
            *players,
            *figures,
            _ruler(seconds, tempo_bpm),
            f"<p>{keys}. Click a spectrogram to jump to that time. Spectrograms show 0 to "
            f"{sample_rate / 2000:.4g} kHz, all on the same colour scale.</p>",
            "</section>",
        )
    )


def _ruler(seconds: float, tempo_bpm: float | None) -> str:
    """Time ticks in minutes:seconds, or in bars of 4/4."""
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
    return f'<div class="frame"><img alt="{alternative}" src="data:image/png;base64,{png}"><i class="cursor"></i></div>'


def _bars(values: np.ndarray) -> str:
    """Horizontal bars, the lowest band at the bottom."""
    count = len(values)
    bars = "".join(
        f'<rect x="0" y="{count - 1 - k}" width="{100 * float(np.clip(value, 0, 1)):.1f}" height="0.9"/>'
        for k, value in enumerate(values)
    )
    attributes = f'viewBox="0 0 100 {count}" preserveAspectRatio="none" aria-label="Mean severity by frequency"'
    return f"<svg {attributes}>{bars}</svg>"


def _flac(signal: np.ndarray, sample_rate: int) -> str:
    """16-bit FLAC in base64; a signal that peaks above full scale is attenuated as a whole."""
    audio = signal if len(signal) <= 2 else signal.mean(axis=0, keepdims=True)
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    out = io.BytesIO()
    soundfile.write(out, audio.T, sample_rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode()


def _shrunk(values: np.ndarray) -> np.ndarray:
    """An image (F, N) reduced to at most 512 rows and 1600 columns; each pixel shows the largest of its values."""
    for axis, limit in ((1, 1600), (0, 512)):
        if not values.shape[axis]:
            return np.zeros((1, 1))
        step = -(-values.shape[axis] // limit)
        values = np.maximum.reduceat(values, np.arange(0, values.shape[axis], step), axis=axis)
    return values


def _png(values: np.ndarray, colours: str, low: float, high: float) -> str:
    """A PNG of (F, N) without axes, lowest row at the bottom, in base64."""
    from matplotlib.image import imsave

    out = io.BytesIO()
    imsave(out, values, cmap=colours, vmin=low, vmax=high, origin="lower", format="png")
    return base64.b64encode(out.getvalue()).decode()
