"""Draws spectrograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FLOOR_DB = -80.0
_WINDOW_SAMPLES = 2048
_HOP_SAMPLES = 512


def draw_spectrograms(signals: dict[str, np.ndarray], sample_rate: int, path: Path) -> None:
    """Write a PNG with the spectrograms of signals (C, T), downmixed to mono, one above the other on the same colour
    scale. Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MultipleLocator

    levels_db = {name: level_db(signal.mean(axis=0)) for name, signal in signals.items()}
    top_db = max(float(level.max()) for level in levels_db.values())
    figure = Figure(figsize=(12, 3.1 * len(signals) + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(signals), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (name, level) in zip(axes, levels_db.items(), strict=True):
        seconds = level.shape[1] * _HOP_SAMPLES / sample_rate
        image = axis.imshow(
            level - top_db, extent=(0, seconds, 0, sample_rate / 2000), vmin=FLOOR_DB, vmax=0,
            origin="lower", aspect="auto", cmap="magma", interpolation="nearest",
        )  # fmt: skip
        axis.set_title(name, loc="left", fontsize=13, fontweight="bold")
        axis.set_ylabel("Frequency (kHz)", fontsize=11)
        axis.yaxis.set_major_locator(MultipleLocator(5))
    axes[-1].set_xlabel("Time (s)", fontsize=11)
    figure.colorbar(image, ax=list(axes), label="Level below the loudest point (dB)", pad=0.01)
    figure.savefig(path, format="png")


def level_db(mono: np.ndarray) -> np.ndarray:
    """Mono signal (T,) to levels in dB (F, N), Hann window."""
    padded = np.pad(mono, (0, max(0, _WINDOW_SAMPLES - len(mono))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW_SAMPLES)[::_HOP_SAMPLES]
    power = np.abs(np.fft.rfft(frames * np.hanning(_WINDOW_SAMPLES), axis=1)) ** 2
    return 10 * np.log10(power.T + 1e-12)
