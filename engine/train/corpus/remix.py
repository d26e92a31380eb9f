"""Random remixes: vocals and a band drawn from the sources, augmented, and set at random levels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pedalboard
import soxr

from .mixing import active_rms
from .sources import SAMPLE_RATE, CorpusError, Source, activity, read_stereo

_FADE = 441
_ACTIVITY_S = 0.5
_SILENT_RMS = 2e-3
#: If there is singing: how often each kind of vocals gets a song's band, rather than a full or rendered recording.
_P_SONG_BAND = {"singing": 0.5, "song": 0.7, "voice": 0.2}
#: Kinds of bands with separate stems.
_WITH_STEMS = ("song", "rendered")


@dataclass(frozen=True)
class RemixConfig:
    """Probabilities and ranges of the remixes. Speeds are factors; ratios (vocals to band, active RMS) and gains in dB.

    p_songs: probability that vocals and band both come from songs. p_original: of those, and of melodies sung to a
    rendered song, the probability of staying with the original band (same song, position and speed). p_active:
    probability of reading song vocals at a place with singing.
    singers: if there are sources of the kind "singing", the weights of singing, song vocals and spoken words; replaces
    p_songs.
    vary: False leaves the sources alone (speed, equaliser, width, polarity, channels).
    Raises CorpusError for values out of range.
    """

    p_songs: float = 0.45
    p_original: float = 0.5
    p_active: float = 0.85
    singers: tuple[float, float, float] = (0.45, 0.30, 0.25)
    speed: tuple[float, float] = (0.84, 1.19)
    ratio_db: tuple[float, float] = (-10.0, 6.0)
    original_ratio_db: tuple[float, float] = (-4.0, 4.0)
    gain_db: tuple[float, float] = (-12.0, 0.0)
    peak: float = 0.9
    vary: bool = True

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed[0] <= self.speed[1] <= 2.0:
            raise CorpusError(f"speed={self.speed} is not a range: use two ascending numbers from 0.5 to 2")
        if min(self.singers) < 0 or sum(self.singers) <= 0:
            raise CorpusError(f"singers={self.singers} are not weights: use numbers of 0 or more, not all of them 0")
        if not 0.0 < self.peak <= 0.95:
            raise CorpusError(f"peak={self.peak} leaves no headroom: use a value in (0, 0.95]")


@dataclass(frozen=True)
class Remix:
    """Vocals and band, (2, T) float32 at 44.1 kHz; the mix is their sum. info: how it was made, ready for JSON."""

    vocals: np.ndarray
    band: np.ndarray
    info: dict[str, Any] = field(default_factory=dict)


def _pick(rng: np.random.Generator, sources: list[Source]) -> Source:
    """A random source. Origins ("wesnoth", "klettres", a song ...) weigh as the root of their number of sources."""
    origins: dict[str, list[Source]] = {}
    for source in sources:
        origins.setdefault(source.name.split("/")[0], []).append(source)
    names = sorted(origins)
    weights = np.array([len(origins[name]) ** 0.5 for name in names])
    chosen = origins[names[rng.choice(len(names), p=weights / weights.sum())]]
    return chosen[rng.integers(len(chosen))]


def _start(rng: np.random.Generator, source: Source, length: int, p_active: float) -> int:
    """A start sample: with probability p_active where about half of the windows are audible, else anywhere."""
    last = max(source.length_samples - length, 0)
    if rng.random() < p_active:
        level = activity(source, _ACTIVITY_S)
        audible = (level > 0.1 * np.quantile(level, 0.95)).astype(float)
        span = max(1, min(int(length / SAMPLE_RATE / _ACTIVITY_S), len(audible)))
        share = np.convolve(audible, np.ones(span) / span, mode="valid")
        good = np.flatnonzero(share >= min(0.45, 0.9 * share.max()))
        at = (rng.choice(good) + rng.random()) * _ACTIVITY_S * SAMPLE_RATE
        return int(min(at, last))
    return int(rng.integers(last + 1))


def _change_speed(audio: np.ndarray, speed: float, length: int) -> np.ndarray:
    """(2, n) played at `speed` times its speed (and pitch), cut or padded to (2, length)."""
    if speed != 1.0:
        audio = soxr.resample(np.ascontiguousarray(audio.T), SAMPLE_RATE * speed, SAMPLE_RATE, quality="HQ").T
    out = np.zeros((2, length), np.float32)
    out[:, : min(length, audio.shape[1])] = audio[:, :length]
    return out


def augment(rng: np.random.Generator, audio: np.ndarray) -> np.ndarray:
    """A gentle random equaliser, width, polarity and channel swap for (2, T)."""
    board: list[pedalboard.Plugin] = []
    if rng.random() < 0.6:
        board.append(pedalboard.LowShelfFilter(float(rng.uniform(80, 400)), float(rng.uniform(-5, 5))))
    if rng.random() < 0.6:
        board.append(pedalboard.HighShelfFilter(float(rng.uniform(3000, 10000)), float(rng.uniform(-5, 5))))
    for _ in range(rng.integers(3)):
        frequency_hz = float(np.exp(rng.uniform(np.log(150), np.log(9000))))
        board.append(pedalboard.PeakFilter(frequency_hz, float(rng.uniform(-5, 5)), float(rng.uniform(0.5, 2.0))))
    audio = pedalboard.Pedalboard(board)(audio, SAMPLE_RATE) if board else audio
    mid, side = (audio[0] + audio[1]) / 2, (audio[0] - audio[1]) / 2 * float(rng.uniform(0.5, 1.3))
    audio = np.stack([mid + side, mid - side])
    if rng.random() < 0.5:
        audio = audio[::-1]
    return np.ascontiguousarray(-audio if rng.random() < 0.5 else audio, dtype=np.float32)


def phrase(rng: np.random.Generator, source: Source, length: int) -> np.ndarray:
    """A phrase (2, length) strung together from a voice's clips: trimmed, levelled, with some reverb.

    Half of the phrases are "sung": clips are stretched up to three times, and their pitches follow a random walk.
    """
    mono = np.zeros(length, np.float32)
    at = int(rng.uniform(0, 0.4) * SAMPLE_RATE)
    sung, step = rng.random() < 0.5, 0.0
    transpose = float(rng.uniform(-3, 3))
    failures = 0
    while at < length and failures < 20:
        clip = read_stereo(source.parts[rng.integers(len(source.parts))]).mean(axis=0)
        loud = np.flatnonzero(np.abs(clip) > 0.02 * np.abs(clip).max(initial=0))
        if len(loud) < 0.08 * SAMPLE_RATE or np.abs(clip).max() < 5e-3:
            failures += 1
            continue
        clip = clip[loud[0] : min(loud[-1] + 1, loud[0] + 4 * SAMPLE_RATE)]
        if sung:
            step = float(np.clip(step + rng.choice([-4, -3, -2, -1, 0, 1, 2, 3, 4]), -6, 6))
            stretch = float(rng.uniform(0.35, 1.0))
            clip = pedalboard.time_stretch(
                np.ascontiguousarray(clip), SAMPLE_RATE, stretch, step + transpose, high_quality=False
            )[0]
        clip = clip * (0.1 * float(rng.uniform(0.6, 1.3)) / (float(np.sqrt(np.mean(clip**2))) + 1e-9))
        ramp = min(220, len(clip) // 2)
        clip[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)
        clip[len(clip) - ramp :] *= np.linspace(1, 0, ramp, dtype=np.float32)
        end = min(at + len(clip), length)
        mono[at:end] += clip[: end - at]
        rest_s = rng.uniform(0.5, 1.5) if rng.random() < 0.15 else rng.uniform(0.0, 0.3)
        at = end + int(rest_s * SAMPLE_RATE)
    pan = float(rng.uniform(-0.2, 0.2))
    stereo = np.stack([mono * (1 - pan), mono * (1 + pan)])
    board: list[pedalboard.Plugin] = []
    if rng.random() < 0.15:
        board.append(pedalboard.Chorus(rate_hz=0.5, depth=0.1, mix=0.3))
    if rng.random() < 0.85:
        room, wet = float(rng.uniform(0.1, 0.7)), float(rng.uniform(0.03, 0.25))
        board.append(
            pedalboard.Reverb(room_size=room, damping=float(rng.uniform(0.2, 0.8)), wet_level=wet, dry_level=0.8)
        )
    return pedalboard.Pedalboard(board)(stereo, SAMPLE_RATE) if board else stereo


def _band(
    rng: np.random.Generator, source: Source, start: int, length: int, others: list[Source]
) -> tuple[np.ndarray, list[str]]:
    """A band (2, length) and the names of its stems: in a quarter of the draws one stem is left out, in another quarter
    it is replaced by one from another song (`others`)."""
    stems, chance = list(dict.fromkeys(source.stems)), rng.random()
    if source.kind in _WITH_STEMS and len(stems) > 1 and chance < 0.5:
        removed = stems.pop(rng.integers(len(stems)))
        audio = source.read(start, length, _parts_of(source, *stems))
        donors = [song for song in others if song is not source and removed in song.stems]
        if chance < 0.25 and donors:
            song = donors[rng.integers(len(donors))]
            at = int(rng.integers(max(song.length_samples - length, 0) + 1))
            audio += song.read(at, length, _parts_of(song, removed))
            stems.append(f"{song.group}:{removed}")
        return audio, stems
    return source.read(start, length), stems


def _parts_of(source: Source, *stems: str) -> tuple[Path, ...]:
    return tuple(part for part, stem in zip(source.parts, source.stems, strict=True) if stem in stems)


class Remixer:
    """Draws remixes of `length` samples from the sources of one split.

    The same generator state gives the same remix; nothing is kept from one draw to the next.
    """

    def __init__(self, sources: list[Source], length: int, config: RemixConfig | None = None) -> None:
        self.config = config if config is not None else RemixConfig()
        self.length = length
        self.vocals = [source for source in sources if source.role == "vocals"]
        self.bands = [source for source in sources if source.role == "accompaniment"]
        if not self.vocals or not self.bands:
            raise CorpusError(
                f"{len(self.vocals)} vocals and {len(self.bands)} bands: a remix needs at least one of each"
            )
        self.song_vocals = [source for source in self.vocals if source.kind == "song"]
        self.song_bands = [source for source in self.bands if source.kind == "song"]
        self.bands_with_stems = [source for source in self.bands if source.kind in _WITH_STEMS]
        self._rendered = {source.group: source for source in self.bands if source.kind == "rendered"}

    def draw(self, rng: np.random.Generator) -> Remix:
        """One remix. Raises CorpusError after 8 silent draws."""
        for _ in range(8):
            remix = self._draw_once(rng)
            if remix is not None:
                return remix
        raise CorpusError("8 draws in a row were silent: check the sources for silence")

    def _choose(self, rng: np.random.Generator) -> tuple[Source, Source, bool]:
        """(vocals, band, whether they belong together and stay in sync)."""
        if any(source.kind == "singing" for source in self.vocals):
            return self._choose_singer(rng)
        songs = bool(self.song_vocals) and bool(self.song_bands)
        more_than_songs = len(self.vocals) > len(self.song_vocals) or len(self.bands) > len(self.song_bands)
        if songs and (not more_than_songs or rng.random() < self.config.p_songs):
            vocals = self.song_vocals[rng.integers(len(self.song_vocals))]
            original = [band for band in self.song_bands if band.group == vocals.group]
            others = [band for band in self.song_bands if band.group != vocals.group]
            if original and (not others or rng.random() < self.config.p_original):
                return vocals, original[0], True
            return vocals, others[rng.integers(len(others))], False
        voices = [source for source in self.vocals if source.kind != "song"]
        music = [source for source in self.bands if source.kind != "song"]
        from_song = rng.random()
        vocals_from = self.song_vocals if self.song_vocals and music and (from_song < 0.35 or not voices) else voices
        bands_from = self.song_bands if self.song_bands and voices and (from_song > 0.8 or not music) else music
        return _pick(rng, vocals_from), _pick(rng, bands_from), False

    def _choose_singer(self, rng: np.random.Generator) -> tuple[Source, Source, bool]:
        """Like _choose, with RemixConfig.singers as weights of the kinds of vocals that there are."""
        kinds = ("singing", "song", "voice")
        vocals_of = {kind: [source for source in self.vocals if source.kind == kind] for kind in kinds}
        weights = np.array([w * bool(vocals_of[kind]) for kind, w in zip(kinds, self.config.singers, strict=True)])
        if weights.sum() == 0:
            weights = np.array([float(bool(vocals_of[kind])) for kind in kinds])
        kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
        vocals = _pick(rng, vocals_of[kind])
        sung_to = self._rendered.get(vocals.group) if kind == "singing" else None
        if sung_to is not None and rng.random() < self.config.p_original:
            return vocals, sung_to, True
        music = [band for band in self.bands if band.kind != "song"]
        if not self.song_bands or (music and rng.random() > _P_SONG_BAND[kind]):
            return vocals, _pick(rng, music), False
        original = [band for band in self.song_bands if kind == "song" and band.group == vocals.group]
        others = [band for band in self.song_bands if band not in original]
        if original and (not others or rng.random() < self.config.p_original):
            return vocals, original[0], True
        return vocals, _pick(rng, others), False

    def _draw_once(self, rng: np.random.Generator) -> Remix | None:
        """One remix, or None if its band is silent."""
        config = self.config
        vocals, band, original = self._choose(rng)
        low, high = (float(np.log(speed)) for speed in config.speed)
        speed_v, speed_a = np.exp(rng.uniform(low, high, size=2)) if config.vary else (1.0, 1.0)
        speed_a = speed_v if original else speed_a
        need_v, need_a = (int(np.ceil(self.length * speed)) + 8 for speed in (speed_v, speed_a))
        start_v = 0
        if vocals.kind == "voice":
            x_v = phrase(rng, vocals, need_v)
        else:
            start_v = _start(rng, vocals, need_v, config.p_active)
            x_v = vocals.read(start_v, need_v)
        start_a = start_v if original else _start(rng, band, need_a, 0.0)
        x_a, parts = _band(rng, band, start_a, need_a, [] if original else self.bands_with_stems)
        x_v, x_a = _change_speed(x_v, speed_v, self.length), _change_speed(x_a, speed_a, self.length)
        level_v, level_a = active_rms(x_v), active_rms(x_a)
        if level_a < _SILENT_RMS:
            return None
        ratio_db = None
        if level_v > _SILENT_RMS:
            if original:
                gain = 10 ** (rng.uniform(*config.original_ratio_db) / 20)
            else:
                gain = 10 ** (rng.uniform(*config.ratio_db) / 20) * level_a / level_v
            x_v *= gain
            ratio_db = round(float(20 * np.log10(gain * level_v / level_a)), 2)
        if config.vary:
            x_v, x_a = augment(rng, x_v), augment(rng, x_a)
        fade = np.linspace(0, 1, _FADE, dtype=np.float32)
        for audio in (x_v, x_a):
            audio[:, :_FADE] *= fade
            audio[:, -_FADE:] *= fade[::-1]
        peak = max(float(np.abs(audio).max()) for audio in (x_v, x_a, x_v + x_a))
        gain_db = float(rng.uniform(*config.gain_db))
        scale = np.float32(config.peak * 10 ** (gain_db / 20) / max(peak, 1e-6))
        info = {
            "vocals": vocals.name, "vocals_start": start_v, "vocals_speed": round(float(speed_v), 5),
            "band": band.name, "band_start": start_a, "band_speed": round(float(speed_a), 5), "band_parts": parts,
            "original_pairing": original, "ratio_db": ratio_db, "gain_db": round(gain_db, 2),
            "licences": sorted({vocals.licence, band.licence}),
        }  # fmt: skip
        return Remix(x_v * scale, x_a * scale, info)


def whole_song(vocals: Source, band: Source, peak: float = 0.9) -> Remix:
    """A song from start to end, scaled down only if vocals, band or mix would exceed `peak`."""
    length = max(vocals.length_samples, band.length_samples)
    x_v, x_a = vocals.read(0, length), band.read(0, length)
    loudest = max(float(np.abs(audio).max()) for audio in (x_v, x_a, x_v + x_a))
    scale = np.float32(min(1.0, peak / max(loudest, 1e-6)))
    return Remix(x_v * scale, x_a * scale, {"vocals": vocals.name, "band": band.name, "original_pairing": True})
