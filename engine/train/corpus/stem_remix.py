"""Remixes for the second separator: drums, bass, other and vocals drawn from sources that have them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .mixing import active_rms
from .remix import Remix, augment
from .sources import CorpusError, Source

STEMS = ("drums", "bass", "other", "vocals")
_SILENT_RMS = 2e-3


@dataclass(frozen=True)
class StemLibrary:
    """The recordings of each stem: (source, its files of that stem)."""

    stems: dict[str, list[tuple[Source, tuple[Path, ...]]]]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> StemLibrary:
        """Sort the sources by stem. Raises CorpusError if a stem has none."""
        found: dict[str, list[tuple[Source, tuple[Path, ...]]]] = {stem: [] for stem in STEMS}
        for source in sources:
            if source.role == "vocals":
                if source.kind in ("song", "singing"):
                    found["vocals"].append((source, source.parts))
            elif source.kind in ("song", "rendered"):
                stems = [stem if stem in ("drums", "bass") else "other" for stem in source.stems]
                for stem in dict.fromkeys(stems):
                    files = tuple(part for part, of in zip(source.parts, stems, strict=True) if of == stem)
                    found[stem].append((source, files))
        missing = [stem for stem, recordings in found.items() if not recordings]
        if missing:
            raise CorpusError(f"no source has {' or '.join(missing)} as a separate stem: add songs with these stems")
        return cls(found)

    def draw(self, rng: np.random.Generator, length: int) -> tuple[dict[str, np.ndarray], dict[str, Source]]:
        """Each stem (2, length), and the sources of the audible ones.

        In half of the draws a band's stems are taken together, from one place; everything else comes from anywhere, at
        levels within 6 dB of each other. One stem in eight is silent.
        """
        out: dict[str, np.ndarray] = {}
        origins: dict[str, Source] = {}
        drums, _ = self._draw_any(rng, "drums")
        start = int(rng.integers(max(drums.length_samples - length, 0) + 1))
        together = rng.random() < 0.5
        for stem in STEMS:
            same_song = [one for one in self.stems[stem] if one[0].group == drums.group] if together else []
            source, files = same_song[0] if same_song else self._draw_any(rng, stem)
            at = start if same_song else int(rng.integers(max(source.length_samples - length, 0) + 1))
            audio = source.read(at, length, files)
            level = active_rms(audio)
            if level > _SILENT_RMS and not same_song:
                audio = audio * np.float32(0.1 * 10 ** (rng.uniform(-6, 6) / 20) / level)
            silent = rng.random() < 0.125
            out[stem] = np.zeros_like(audio) if silent else augment(rng, audio)
            if not silent:
                origins[stem] = source
        return out, origins

    def _draw_any(self, rng: np.random.Generator, stem: str) -> tuple[Source, tuple[Path, ...]]:
        recordings = self.stems[stem]
        return recordings[rng.integers(len(recordings))]


def has_every_stem(sources: Sequence[Source]) -> bool:
    """Whether a StemLibrary can be made of these sources."""
    try:
        StemLibrary.of(sources)
    except CorpusError:
        return False
    return True


@dataclass(frozen=True)
class StemRemixer:
    """Draws remixes of one stem ("vocals" in the pool's names) and the sum of all others ("accompaniment")."""

    library: StemLibrary
    stem: str
    length: int
    peak: float = 0.9

    def draw(self, rng: np.random.Generator) -> Remix:
        """One remix in which the stem and the others are audible. Raises CorpusError after 20 silent draws."""
        for _ in range(20):
            stems, origins = self.library.draw(rng, self.length)
            target = stems.pop(self.stem)
            rest = np.sum(list(stems.values()), axis=0)
            if active_rms(target) > _SILENT_RMS and active_rms(rest) > _SILENT_RMS:
                break
        else:
            raise CorpusError(f"20 draws in a row lacked {self.stem} or other stems: check the sources for silence")
        peak = max(float(np.abs(audio).max()) for audio in (target, rest, target + rest))
        scale = np.float32(self.peak * 10 ** (rng.uniform(-12.0, 0.0) / 20) / peak)
        info = {
            "stem": self.stem, "sources": {stem: source.name for stem, source in origins.items()},
            "licences": sorted({source.licence for source in origins.values()}),
        }  # fmt: skip
        return Remix(target * scale, rest * scale, info)
