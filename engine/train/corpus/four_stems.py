"""A second separator, small and trained here: magnitude masks for drums, bass, other and vocals.

    python -m stemprover.engine.train.corpus.four_stems --minutes 15

It need not be good, only different from Spleeter, so that a repair does not learn the habits of a single separator: it
has other stems, one network for all of them, a smaller transform (2048 with hop 512, not 4096 with hop 1024), and masks
that sum to one. The network is a U-Net over frequency and time after Jansson et al. (Singing voice separation with deep
U-Net convolutional networks, ISMIR 2017) with a softmax over the stems, trained with an L1 loss on magnitudes.

The weights are kept in <cache>/four-stems/. Only stems of the split "train" are used.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .collect import list_sources
from .sources import ROLES, SAMPLE_RATE, CorpusError, Source, cache_dir
from .spleeter import SeparatorError
from .stem_remix import STEMS, StemLibrary

N_FFT, HOP, BINS = 2048, 512, 1024
#: Variants, under the names of Spleeter's: the exponent of the masks, and the bin above which the output is empty.
VARIANTS = {"zeros": (1.0, round(16_000 * N_FFT / SAMPLE_RATE)), "average": (2.0, BINS)}
VERSION = 1
_WIDTHS = (24, 32, 48, 64)


class MaskNet(nn.Module):
    """Compressed magnitudes of mid and side (B, 2, 1024, N), N a multiple of 8, to masks (B, 4, 2, 1024, N).

    The masks of the four stems sum to one.
    """

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
    """The network's input: square roots of magnitudes (B, 2, F, N), divided by their mean over the excerpt."""
    root = magnitude.sqrt()
    return root / (root.mean(dim=(1, 2, 3), keepdim=True) + 1e-6)


def spectra(audio: Tensor) -> Tensor:
    """Waveforms (..., 2, T) to spectra of mid and side (..., 2, 1024, N), without the highest bin."""
    sides = torch.stack([audio[..., 0, :] + audio[..., 1, :], audio[..., 0, :] - audio[..., 1, :]], dim=-2) / 2
    window = torch.hann_window(N_FFT, device=audio.device)
    flat = torch.stft(sides.flatten(0, -2), N_FFT, HOP, window=window, return_complex=True)[:, :BINS]
    return flat.reshape(*sides.shape[:-1], *flat.shape[1:])


class FourStems:
    """The trained separator. Raises SeparatorError if the weights are missing or damaged."""

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        path = weights if weights is not None else weights_path()
        if not path.exists():
            raise SeparatorError(
                f"no weights at {path}: train them with python -m stemprover.engine.train.corpus.four_stems"
            )
        self.device = torch.device(device)
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            self.net = MaskNet()
            self.net.load_state_dict(saved["net"])
        except Exception as error:  # torch.load can raise anything, depending on the bytes
            raise SeparatorError(f"{path} has no weights for this separator ({type(error).__name__})") from error
        self.net.eval().to(self.device)

    @torch.inference_mode()
    def separate_all(self, mix: np.ndarray, stem: str = "vocals") -> dict[str, dict[str, np.ndarray]]:
        """Separate one stem from a mix (2, T): {variant: {"vocals": (2, T), "accompaniment": (2, T)}}.

        "vocals" is the stem, whichever it is, and "accompaniment" the rest, so that the result has the form of
        Spleeter.separate_all.
        """
        if stem not in STEMS:
            raise SeparatorError(f"stem={stem!r} is unknown: use one of {', '.join(STEMS)}")
        if mix.ndim != 2 or mix.shape[0] != 2:
            raise SeparatorError(f"mix has shape {mix.shape}; it must be stereo of shape (2, T)")
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
            out[variant] = dict(zip(ROLES, both, strict=True))
        return out

    def _waveform(self, spectrum: Tensor, length: int) -> np.ndarray:
        whole = nn.functional.pad(spectrum, (0, 0, 0, 1))
        window = torch.hann_window(N_FFT, device=self.device)
        mid, side = torch.istft(whole, N_FFT, HOP, window=window, length=length)
        return torch.stack([mid + side, mid - side]).cpu().numpy()


def weights_path() -> Path:
    """The file of the trained weights in the cache."""
    return cache_dir() / "four-stems" / f"weights-{VERSION}.pt"


def train_four_stems(
    sources: Sequence[Source], out: Path, minutes: float = 15.0, *, batch: int = 4, frames: int = 160, seed: int = 1,
    steps: int = 10**9, device: str | torch.device = "cpu", say: Callable[[str], None] = print,
) -> list[float]:  # fmt: skip
    """Train on stems of the split "train", write the averaged weights to `out`, and return the losses."""
    library = StemLibrary.of([source for source in sources if source.split == "train"])
    torch.manual_seed(seed)
    net = MaskNet().to(device)
    average = {name: value.detach().clone() for name, value in net.state_dict().items()}
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=0.01)
    began, found, step = time.monotonic(), list[float](), 0
    while (done := max((time.monotonic() - began) / 60 / minutes, step / steps)) < 1.0:
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        rng = np.random.default_rng([seed, step])
        drawn = [list(library.draw(rng, (frames - 1) * HOP)[0].values()) for _ in range(batch)]
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
    """L1 distance of the masked mix's magnitudes from each stem's, relative to the mix: stems (B, 4, 2, T)."""
    with torch.no_grad():
        truth = spectra(stems).abs()
        mix = spectra(stems.sum(dim=1)).abs()
    masks = net(compressed(mix))
    return (masks * mix[:, None] - truth).abs().sum() / (mix.sum() + 1e-6)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m stemprover.engine.train.corpus.four_stems", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--stems", type=Path, action="append", default=[], help="folder of true stems; may be repeated")
    parser.add_argument("--out", type=Path, default=weights_path(), help="file for the weights")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long to train")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="where to train: cpu or cuda"
    )
    options = parser.parse_args(arguments)
    say = partial(print, flush=True)
    try:
        sources = list_sources(options.stems, True, say)
        train_four_stems(sources, options.out, options.minutes, device=options.device, say=say)
    except CorpusError as error:
        raise SystemExit(f"Error: {error}") from None
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
