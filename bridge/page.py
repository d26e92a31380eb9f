"""One self-contained HTML page: sounds to listen to with one switch, their spectrograms, and figures. No network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np
import soundfile

from .audiofile import probe, read_start
from .compare import Comparison, Row, inputs_of
from .outfile import atomic_output
from .picture import FLOOR_DB, level_db

LONGEST_S = 90.0
_TEMPLATE = Path(__file__).with_name("page.html")


def write_page(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """The page of a comparison, with the first minute and a half of its sounds. Raises OutputExistsError,
    OutputError."""
    named = {"Before": comparison.before, "After": comparison.after, "True stem": comparison.reference}
    info = probe(comparison.before)
    count = round(LONGEST_S * info.sample_rate)
    sounds = {name: read_start(path, count) for name, path in named.items() if path is not None}
    text = make_page(comparison.before.name, sounds, info.sample_rate, comparison.rows)
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")


def make_page(title: str, sounds: Mapping[str, np.ndarray], sample_rate: int, rows: Sequence[Row]) -> str:
    """HTML text for sounds (C, T) by name, in the order of the switch; more than two channels are heard as their
    mean."""
    levels = {name: level_db(sound.mean(axis=0)) for name, sound in sounds.items()}
    top_db = max(float(level.max()) for level in levels.values())
    buttons, players, pictures = [], [], []
    for number, (name, sound) in enumerate(sounds.items()):
        label, first = html.escape(name), number == 0
        buttons.append(f'<button type="button" class="pick" aria-pressed="{str(first).lower()}">{label}</button>')
        players.append(f'<audio preload="auto" src="data:audio/flac;base64,{_flac(sound, sample_rate)}"></audio>')
        picture = _picture(levels[name] - top_db)
        pictures.append(
            f'<figure><figcaption>{label}</figcaption><div class="frame"><img alt="Spectrogram, {label}" '
            f'src="data:image/png;base64,{picture}"><i class="now"></i></div></figure>'
        )
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=html.escape(title),
        buttons="\n".join(buttons),
        players="\n".join(players),
        pictures="\n".join(pictures),
        rows="\n".join(_row(row) for row in rows),
        highest=f"{sample_rate / 2000:.4g}",
    )


def _row(row: Row) -> str:
    name = html.escape(f"{row.name} ({row.unit})" if row.unit else row.name)
    cells = "".join(f"<td>{value:.3f}</td>" for value in (row.before, row.after))
    return (
        f'<tr><th scope="row">{name}</th>{cells}'
        f'<td class="{row.verdict}">{row.after - row.before:+.3f} {row.verdict}</td></tr>'
    )


def _flac(sound: np.ndarray, sample_rate: int) -> str:
    """16-bit FLAC in base64; a peak over full scale brings the whole sound down."""
    audio = sound if len(sound) <= 2 else sound.mean(axis=0, keepdims=True)
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    out = io.BytesIO()
    soundfile.write(out, audio.T, sample_rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(out.getvalue()).decode()


def _picture(levels_db: np.ndarray) -> str:
    """A spectrogram (F, N) without axes as PNG in base64."""
    from matplotlib.image import imsave

    each = -(-levels_db.shape[1] // 1600), -(-levels_db.shape[0] // 512)
    small = np.maximum.reduceat(levels_db, np.arange(0, levels_db.shape[1], each[0]), axis=1)
    small = np.maximum.reduceat(small, np.arange(0, levels_db.shape[0], each[1]), axis=0)
    out = io.BytesIO()
    imsave(out, small, cmap="magma", vmin=FLOOR_DB, vmax=0.0, origin="lower", format="png")
    return base64.b64encode(out.getvalue()).decode()
