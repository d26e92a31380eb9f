"""Make presets/demo: a mix, one stem of it as separated by Spleeter, and the true stem.

    pip install -e ".[train]"
    python tools/make_demo_sample.py [OUT] [--stem accompaniment|vocals] [--song Feelings] [--bar 33] [--bars 7]

The band is a song of Debian's fretsonfire-songs-sectoid (MIT/Expat), which has no singer. The singer is the Italian
voice of klettres (GPL-2+): spoken syllables, which the WORLD vocoder sets to a melody here. The melody follows the
guitar's strongest notes on the song's beat. Both belong to the split "test", so the model was not trained on them.
Needs apt-get (Debian) and the network for the sources.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pedalboard
import soundfile as sf
from stemprover.engine.train.corpus.packages import fetch_package
from stemprover.engine.train.corpus.pool import sdr_db
from stemprover.engine.train.corpus.sources import SAMPLE_RATE, read_stereo
from stemprover.engine.train.corpus.spleeter import Spleeter
from stemprover.engine.train.corpus.words import Word, analyse_word, sing

TEMPO_BPM = {"Feelings": 95.0, "Escape from chaosland": 135.0, "War of freedom": 140.0, "Metal madness": 150.0}
#: Bars of four beats: the lengths of the notes; a negative one is a rest.
RHYTHM = ((1.0, 0.5, 0.5, 1.5, -0.5), (0.5, 0.5, 1.0, 1.0, 0.5, -0.5), (1.0, 1.0, 2.0), (0.5, 0.5, 0.5, 0.5, 1.5, -0.5))
WORDS = ["la", "mi", "no", "va", "te", "so", "ri", "ma", "lu", "na", "ve", "di", "re", "sa"]
WORDS += ["lo", "mi", "na", "to", "se", "ra", "da", "vo", "la", "re", "mi", "so", "no", "la"]
CROSSFADE_S = 0.02


def chroma(audio: np.ndarray) -> np.ndarray:
    """Square root of the energy of each pitch class (12,), A = 0, of audio (2, T) between 110 and 1760 Hz."""
    mono = audio.mean(axis=0) * np.hanning(audio.shape[1])
    magnitude = np.abs(np.fft.rfft(mono))
    hz = np.fft.rfftfreq(len(mono), 1 / SAMPLE_RATE)
    chosen = (hz > 110) & (hz < 1760)
    classes = np.rint(12 * np.log2(hz[chosen] / 440)).astype(int) % 12
    return np.bincount(classes, weights=magnitude[chosen], minlength=12) ** 0.5


def nearest_note(strength: np.ndarray, before: float, low: float, high: float) -> float:
    """The note (semitones from A4) in [low, high] that is strong in the chroma and close to the note before."""
    notes = np.arange(np.ceil(low), np.floor(high) + 1)
    score = strength[notes.astype(int) % 12] / strength.max() - 0.05 * np.abs(notes - before) - 0.12 * (notes == before)
    return float(notes[np.argmax(score)])


def make_voice(guitar: np.ndarray, tempo_bpm: float) -> np.ndarray:
    """A sung line (2, T) that follows a guitar (2, T), which starts on a beat."""
    folder = fetch_package("klettres-data") / "usr/share/klettres/it/syllab"
    beat = 60 / tempo_bpm * SAMPLE_RATE
    line = np.zeros(guitar.shape[1], np.float32)
    at, note, word = 0.0, 0.0, 0
    syllables: dict[str, Word] = {}
    for name in set(WORDS):
        clip = read_stereo(folder / f"{name}.ogg").mean(axis=0)
        loud = np.flatnonzero(np.abs(clip) > 0.03 * np.abs(clip).max())
        syllables[name] = analyse_word(clip[max(loud[0] - 200, 0) : loud[-1] + 200])
    pitches = np.concatenate([spoken.f0[spoken.voiced] for spoken in syllables.values()])
    own = 12 * np.log2(np.median(pitches) / 440)
    note = own + 3
    bar = 0
    while True:
        for beats in RHYTHM[bar % len(RHYTHM)]:
            start, length = int(at * beat), int(abs(beats) * beat)
            at += abs(beats)
            if start + length > len(line):
                return finish(line)
            if beats < 0:
                continue
            here = guitar[:, start : start + max(length, int(beat))]
            before, note = note, nearest_note(chroma(here), note, own - 1, own + 10)
            sound = sing(syllables[WORDS[word % len(WORDS)]], note, length, before)
            line[start : start + len(sound)] += sound * (0.1 / (np.sqrt(np.mean(sound**2)) + 1e-9))
            word += 1
        bar += 1


def finish(line: np.ndarray) -> np.ndarray:
    """Mix a dry mono line (T,) to a stereo vocal (2, T): compressor, presence, a slightly wide double, a room."""
    board = pedalboard.Pedalboard(
        [
            pedalboard.Compressor(threshold_db=-22, ratio=3, attack_ms=5, release_ms=120),
            pedalboard.HighShelfFilter(6000, 2.0),
            pedalboard.Chorus(rate_hz=0.4, depth=0.06, centre_delay_ms=12, mix=0.1),
            pedalboard.Reverb(room_size=0.45, damping=0.4, wet_level=0.14, dry_level=0.85, width=1.0),
        ]
    )
    return board(np.stack([line, line]), SAMPLE_RATE)


def si_sdr_db(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Scale-invariant SDR over both channels (Le Roux et al., "SDR - half-baked or well done?", 2019)."""
    scaled = truth * (np.vdot(estimate, truth) / np.vdot(truth, truth))
    return float(10 * np.log10(np.sum(scaled**2) / np.sum((scaled - estimate) ** 2)))


def main() -> None:
    """Make the three files, and print the SDR of the separated stems."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).resolve().parents[1] / "presets" / "demo")
    parser.add_argument("--stem", choices=("vocals", "accompaniment"), default="accompaniment")
    parser.add_argument("--song", choices=sorted(TEMPO_BPM), default="Feelings")
    parser.add_argument("--bar", type=int, default=33, help="first bar to use")
    parser.add_argument("--bars", type=int, default=7)
    parser.add_argument("--ratio-db", type=float, default=-3.0, help="level of the voice relative to the band")
    options = parser.parse_args()

    bar = 4 * 60 / TEMPO_BPM[options.song] * SAMPLE_RATE
    start, length = int(options.bar * bar), int(options.bars * bar)
    folder = next(
        p for p in fetch_package("fretsonfire-songs-sectoid").rglob("song.ogg") if p.parent.name == options.song
    ).parent
    guitar = read_stereo(folder / "guitar.ogg", start, length)
    band = read_stereo(folder / "song.ogg", start, length) + guitar
    voice = make_voice(guitar, TEMPO_BPM[options.song])
    rms = [float(np.sqrt(np.mean(x**2))) for x in (voice, band)]
    voice = voice * (10 ** (options.ratio_db / 20) * rms[1] / rms[0])
    fade = np.clip(np.minimum(np.arange(length), np.arange(length)[::-1]) / (CROSSFADE_S * SAMPLE_RATE), 0, 1)
    voice, band = (x * fade.astype(np.float32) for x in (voice, band))
    scale = np.float32(0.85 / np.abs(voice + band).max())
    truth = {"vocals": np.rint(voice * scale * 32767) / 32767, "accompaniment": np.rint(band * scale * 32767) / 32767}
    mix = (truth["vocals"] + truth["accompaniment"]).astype(np.float32)
    separated = Spleeter().separate(mix)

    options.out.mkdir(parents=True, exist_ok=True)
    chosen = {"song": mix, "separated": separated[options.stem], "truth": truth[options.stem]}
    for name, audio in chosen.items():
        pcm = np.rint(audio.T * 32767).astype(np.int16)
        sf.write(options.out / f"{name}.flac", pcm, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
        print(f"{name}.flac: {(options.out / f'{name}.flac').stat().st_size / 1e6:.2f} MB")
    for stem, estimate in separated.items():
        print(f"{stem}: SDR {sdr_db(truth[stem], estimate):.2f} dB, SI-SDR {si_sdr_db(truth[stem], estimate):.2f} dB")


if __name__ == "__main__":
    main()
