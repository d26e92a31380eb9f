"""A second separator, small and trained here: drums, bass, other and vocals by masks on magnitudes.

    python -m stemprover.engine.train.corpus.four_stems --minutes 15

It need not be good, only different from Spleeter: other stems, one network for all of them, another transform (2048 by
512 in place of 4096 by 1024), masks that sum to one. So what a repair learns from both is less one separator's habit. A
U-Net over frequency and time in the manner of Jansson et al. (Singing voice separation with deep U-Net convolutional
networks, 2017) with a softmax over stems; its loss is L1 on magnitudes.

Its weights lie in <cache>/four-stems/; they are trained on stems of split "train" alone.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .mixing import loudness
from .pool import fill_shard
from .remix import Remix, colour
from .separators import SeparatorError
from .sources import SAMPLE_RATE, CorpusError, Source, cache_dir

STEMS = ("drums", "bass", "other", "vocals")
N_FFT, HOP, BINS = 2048, 512, 1024
#: What each of two variants does: the masks' exponent, and above which bin nothing is left (as some models have it).
VARIANTS = {"zeros": (1.0, round(16_000 * N_FFT / SAMPLE_RATE)), "average": (2.0, BINS)}
VERSION = 1
FIRST_SHARD = 1000  # those before are the other separator's
_WIDTHS = (24, 32, 48, 64)
_QUIET = 2e-3


class MaskNet(nn.Module):
    """Compressed magnitudes of mid and side (B, 2, 1024, N), N a multiple of 8, to masks (B, 4, 2, 1024, N) that sum to
    one over the stems."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d = _WIDTHS
        self.bias_in = nn.Parameter(torch.zeros(1, a, BINS // 4, 1))
        self.bias_out = nn.Parameter(torch.zeros(1, 8, BINS, 1))
        self.into = nn.Conv2d(2, a, (8, 3), (4, 1), (2, 1))
        self.down = nn.ModuleList(nn.Conv2d(x, y, 4, 2, 1) for x, y in ((a, b), (b, c), (c, d)))
        self.down_norm = nn.ModuleList(nn.GroupNorm(4, x) for x in (b, c, d))
        self.middle = nn.ModuleList(nn.Conv2d(d, d, 3, padding=(1, step), dilation=(1, step)) for step in (1, 2, 4))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * x, y, 4, 2, 1) for x, y in ((d, c), (c, b), (b, a)))
        self.up_norm = nn.ModuleList(nn.GroupNorm(4, x) for x in (c, b, a))
        self.out = nn.ConvTranspose2d(2 * a, 8, (8, 3), (4, 1), (2, 1))

    def forward(self, x: Tensor) -> Tensor:
        act = nn.functional.silu
        h = act(self.into(x) + self.bias_in)
        skips = [h]
        for conv, norm in zip(self.down, self.down_norm, strict=True):
            h = act(norm(conv(h)))
            skips.append(h)
        for conv in self.middle:
            h = h + act(conv(h))
        for conv, norm in zip(self.up, self.up_norm, strict=True):
            h = act(norm(conv(torch.cat([h, skips.pop()], dim=1))))
        h = self.out(torch.cat([h, skips.pop()], dim=1)) + self.bias_out
        return torch.softmax(h.reshape(len(x), len(STEMS), 2, BINS, -1), dim=1)


def compressed(magnitude: Tensor) -> Tensor:
    """What the network is shown: the root of the magnitude over its mean over the excerpt (B, 2, F, N)."""
    root = magnitude.sqrt()
    return root / (root.mean(dim=(1, 2, 3), keepdim=True) + 1e-6)


def spectra(audio: Tensor) -> Tensor:
    """Waveforms (..., 2, T) to spectra of mid and side (..., 2, 1024, N), the highest bin left out."""
    sides = torch.stack([audio[..., 0, :] + audio[..., 1, :], audio[..., 0, :] - audio[..., 1, :]], dim=-2) / 2
    window = torch.hann_window(N_FFT, device=audio.device)
    flat = torch.stft(sides.flatten(0, -2), N_FFT, HOP, window=window, return_complex=True)[:, :BINS]
    return flat.reshape(*sides.shape[:-1], *flat.shape[1:])


class FourStems:
    """The trained separator. Raises SeparatorError where it has no weights."""

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        path = weights if weights is not None else weights_path()
        if not path.exists():
            raise SeparatorError(f"no weights at {path}: python -m stemprover.engine.train.corpus.four_stems trains them")
        self.device = torch.device(device)
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.net = MaskNet()
            self.net.load_state_dict(saved["net"])
        except Exception as error:  # torch.load raises whatever the bytes lead it to
            raise SeparatorError(f"{path} holds no weights of this separator ({type(error).__name__})") from error
        self.net.eval().to(self.device)

    @torch.inference_mode()
    def separate_all(self, mix: np.ndarray, stem: str = "vocals") -> dict[str, dict[str, np.ndarray]]:
        """Mixture (2, T) to {variant: {"vocals": the stem, "accompaniment": all others}} in the pool's names, each
        (2, T), whatever the stem is; as Spleeter.separate_all."""
        if stem not in STEMS:
            raise SeparatorError(f"stem={stem!r} is not known: use one of {', '.join(STEMS)}")
        if mix.ndim != 2 or mix.shape[0] != 2:
            raise SeparatorError(f"mix has shape {mix.shape}; stereo of shape (2, T) is separated")
        audio = torch.from_numpy(np.ascontiguousarray(mix, np.float32)).to(self.device)
        spectrum = spectra(audio)
        frames = spectrum.shape[-1]
        padded = nn.functional.pad(spectrum.abs(), (0, -frames % 8))[None]
        masks = self.net(compressed(padded))[0][..., :frames]
        out = {}
        for variant, (exponent, top) in VARIANTS.items():
            powered = masks.pow(exponent)
            mask = powered[STEMS.index(stem)] / (powered.sum(dim=0) + 1e-9)
            low = torch.arange(BINS, device=self.device)[:, None] < top
            both = [self._waveform(spectrum * m * low, mix.shape[1]) for m in (mask, 1 - mask)]
            out[variant] = dict(zip(("vocals", "accompaniment"), both, strict=True))
        return out

    def _waveform(self, spectrum: Tensor, length: int) -> np.ndarray:
        whole = nn.functional.pad(spectrum, (0, 0, 0, 1))
        window = torch.hann_window(N_FFT, device=self.device)
        mid, side = torch.istft(whole, N_FFT, HOP, window=window, length=length)
        return torch.stack([mid + side, mid - side]).cpu().numpy()


@dataclass(frozen=True)
class StemShelf:
    """What there is of each stem: (source, files of it), from sources whose stems are apart and from vocals."""

    stems: dict[str, list[tuple[Source, tuple[Path, ...]]]]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> StemShelf:
        """Sort the sources. Raises CorpusError where a stem is nowhere."""
        found: dict[str, list[tuple[Source, tuple[Path, ...]]]] = {stem: [] for stem in STEMS}
        for source in sources:
            if source.role == "vocals":
                if source.kind in ("song", "singing"):
                    found["vocals"].append((source, source.parts))
            elif source.kind in ("song", "rendered"):
                kinds = [stem if stem in ("drums", "bass") else "other" for stem in source.stems]
                for kind in dict.fromkeys(kinds):
                    files = tuple(part for part, of in zip(source.parts, kinds, strict=True) if of == kind)
                    found[kind].append((source, files))
        lacking = [stem for stem, there in found.items() if not there]
        if lacking:
            raise CorpusError(f"there are no {' and no '.join(lacking)} apart to separate: add songs in stems")
        return cls(found)

    def draw(self, rng: np.random.Generator, length: int) -> tuple[dict[str, np.ndarray], dict[str, Source]]:
        """Each stem (2, length), and where it is from: all that one band has of them at one place in half of the draws,
        else from anywhere; one in eight is silent. Levels within 6 dB of each other."""
        out: dict[str, np.ndarray] = {}
        origins: dict[str, Source] = {}
        drums, _ = self._any(rng, "drums")
        start = int(rng.integers(max(drums.length_samples - length, 0) + 1))
        together = rng.random() < 0.5
        for stem in STEMS:
            own = [one for one in self.stems[stem] if one[0].group == drums.group] if together else []
            source, files = own[0] if own else self._any(rng, stem)
            at = start if own else int(rng.integers(max(source.length_samples - length, 0) + 1))
            audio = source.read(at, length, files)
            level = loudness(audio)
            if level > _QUIET and not own:
                audio = audio * np.float32(0.1 * 10 ** (rng.uniform(-6, 6) / 20) / level)
            silent = rng.random() < 0.125
            out[stem] = np.zeros_like(audio) if silent else colour(rng, audio)
            if not silent:
                origins[stem] = source
        return out, origins

    def _any(self, rng: np.random.Generator, stem: str) -> tuple[Source, tuple[Path, ...]]:
        there = self.stems[stem]
        return there[rng.integers(len(there))]


@dataclass(frozen=True)
class StemRemixer:
    """Draws remixes whose first part ("vocals" in the pool's names) is the stem, and whose second is all others."""

    shelf: StemShelf
    stem: str
    length: int
    peak: float = 0.9

    def draw(self, rng: np.random.Generator) -> Remix:
        """One remix in which the stem sounds. Raises CorpusError after 20 silent draws."""
        for _ in range(20):
            stems, origins = self.shelf.draw(rng, self.length)
            target = stems.pop(self.stem)
            rest = np.sum(list(stems.values()), axis=0)
            if loudness(target) > _QUIET and loudness(rest) > _QUIET:
                break
        else:
            raise CorpusError(f"20 draws in a row had no {self.stem} and something else: are the sources silent?")
        peak = max(float(np.abs(audio).max()) for audio in (target, rest, target + rest))
        scale = np.float32(self.peak * 10 ** (rng.uniform(-12.0, 0.0) / 20) / peak)
        info = {
            "stem": self.stem, "sources": {stem: source.name for stem, source in origins.items()},
            "licences": sorted({source.licence for source in origins.values()}),
        }  # fmt: skip
        return Remix(target * scale, rest * scale, info)


def build_four_stems(
    out: Path, split: str, sources: Sequence[Source], separator: FourStems, *, items: int, seed: int, length: int,
    per_shard: int, say: Callable[[str], None] = print,
) -> list[Path]:  # fmt: skip
    """Shards of the pool with this separator's stems in turn, one stem a shard, numbered from FIRST_SHARD on; makes
    those that are not there yet."""
    shelf = StemShelf.of([source for source in sources if source.split == split])
    made = []
    for n in range(-(-items // per_shard)):
        number, stem = FIRST_SHARD + n, STEMS[n % len(STEMS)]
        if not (out / split / f"shard_{number:03d}.npy").exists():
            drawn = range(number * per_shard, number * per_shard + min(per_shard, items - n * per_shard))
            draw, separate = StemRemixer(shelf, stem, length).draw, partial(separator.separate_all, stem=stem)
            made.append(
                fill_shard(out, split, number, drawn, draw, separate, seed=seed, separator="four-stems", say=say)
            )
    return made


def can_draw(sources: Sequence[Source]) -> bool:
    """Whether these have every stem apart."""
    try:
        StemShelf.of(sources)
    except CorpusError:
        return False
    return True


def weights_path() -> Path:
    """Where the weights are kept."""
    return cache_dir() / "four-stems" / f"weights-{VERSION}.pt"


def train_four_stems(
    sources: Sequence[Source], out: Path, minutes: float = 15.0, *, batch: int = 4, frames: int = 160, seed: int = 1,
    steps: int = 10**9, device: str | torch.device = "cpu", say: Callable[[str], None] = print,
) -> list[float]:  # fmt: skip
    """Train on stems of split "train" for so many minutes; write the averaged weights to `out`; returns the losses."""
    shelf = StemShelf.of([source for source in sources if source.split == "train"])
    torch.manual_seed(seed)
    net = MaskNet().to(device)
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    began, found, step = time.monotonic(), list[float](), 0
    while (done := max((time.monotonic() - began) / 60 / minutes, step / steps)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        rng = np.random.default_rng([seed, step])
        drawn = [list(shelf.draw(rng, (frames - 1) * HOP)[0].values()) for _ in range(batch)]
        stems = torch.from_numpy(np.asarray(drawn, np.float32)).to(device)
        loss = mask_loss(net, stems)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for name, value in net.state_dict().items():
                average[name].lerp_(value, 1 - min(0.99, (1 + step) / (10 + step)))
        found.append(float(loss.detach()))
        step += 1
        if step % 25 == 0:
            say(f"step {step}  loss {np.mean(found[-25:]):.4f}  {100 * done:.0f}%")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(f".{os.getpid()}.part")
    torch.save({"net": average, "steps": step, "version": VERSION}, part)
    part.replace(out)
    return found


def mask_loss(net: MaskNet, stems: Tensor) -> Tensor:
    """Mean difference of the masked mixture's magnitudes and each stem's, over the mixture's: stems (B, 4, 2, T)."""
    with torch.no_grad():
        truth = spectra(stems).abs()
        mix = spectra(stems.sum(dim=1)).abs()
    masks = net(compressed(mix))
    return (masks * mix[:, None] - truth).abs().sum() / (mix.sum() + 1e-6)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    from .build import list_sources  # it imports this module

    parser = argparse.ArgumentParser(prog="python -m stemprover.engine.train.corpus.four_stems", description=__doc__)
    parser.add_argument("--stems", type=Path, action="append", default=[], help="folder of true stems")
    parser.add_argument("--out", type=Path, default=weights_path())
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)

    say = partial(print, flush=True)
    try:
        train_four_stems(list_sources(given.stems, True, say), given.out, given.minutes, device=given.device, say=say)
    except CorpusError as error:
        raise SystemExit(f"Error: {error}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
