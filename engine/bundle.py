"""The model bundle on disk: bundle.json, control.onnx, denoiser.onnx and fine.onnx."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .detect.detectors import Detectors
from .dsp.latent import Latent
from .dsp.stft import StftConfig
from .errors import ModelError, OptionError
from .latency import ModelTiming
from .sampler import DiffusionSchedule
from .trust import TrustCurve

GRAPHS = ("control", "denoiser", "fine")


def base_bundle() -> Path:
    """The bundle that ships with the package."""
    return Path(__file__).resolve().parent.parent / "presets" / "base"


@dataclass(frozen=True)
class Bundle:
    """The checked contents of bundle.json, and the bytes of the graphs. Made by `Bundle.load`."""

    folder: Path
    stft: StftConfig
    latent: Latent
    schedule: DiffusionSchedule
    lookahead: int
    receptive_field: Mapping[str, int]
    caches: Mapping[str, Mapping[str, tuple[int, int, int]]]
    graphs: Mapping[str, bytes]
    fine_opened: bool = False
    trust_curve: TrustCurve | None = None

    @property
    def timing(self) -> ModelTiming:
        """Hop, STFT window and look-ahead in samples."""
        return ModelTiming(self.stft.hop, self.stft.n_fft, self.lookahead * self.stft.hop)

    @classmethod
    def load(cls, folder: Path) -> Bundle:
        """Read and check a bundle folder. Raises ModelError if a file is missing or its checksum differs."""
        about = _read_json(folder / "bundle.json")
        if about.get("format") != "stemprover-bundle-6":
            raise ModelError(
                f"{folder / 'bundle.json'}: this version cannot read format {about.get('format')!r}; "
                "export the model again"
            )
        if about.get("detectors") != Detectors().fingerprint:
            raise ModelError(
                f"{folder} was trained with other detectors than this version's; continue its training with these"
            )
        graphs = {}
        try:
            for name in GRAPHS:
                graphs[name] = _checked_bytes(folder / f"{name}.onnx", about["sha256"][f"{name}.onnx"])
            return cls(
                folder=folder,
                stft=StftConfig(**about["stft"]),
                latent=Latent(
                    scale=np.array(about["latent"]["scale"], np.float32), exponent=about["latent"]["exponent"]
                ),
                schedule=DiffusionSchedule(**about["schedule"]),
                lookahead=int(about["lookahead"]),
                receptive_field={name: int(about["receptive_field"][name]) for name in ("control", "denoiser")},
                caches={
                    name: {key: (int(s[0]), int(s[1]), int(s[2])) for key, s in about["caches"][name].items()}
                    for name in GRAPHS
                },
                graphs=graphs,
                fine_opened=bool(about["fine_opened"]),
                trust_curve=TrustCurve.from_dict(about["trust"]) if "trust" in about else None,
            )
        except (KeyError, TypeError, ValueError, IndexError, OptionError) as error:
            raise ModelError(
                f"{folder / 'bundle.json'} is damaged ({type(error).__name__}: {error}); install it again"
            ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(
            f"no model bundle at {path.parent} (bundle.json is missing); reinstall, or give another bundle"
        ) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}); install it again") from error
    if not isinstance(about, dict):
        raise ModelError(f"{path} is not a bundle description; install it again")
    return about


def _checked_bytes(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file {path} is missing or unreadable ({error.strerror}); install it again") from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ModelError(
            f"model file {path} is damaged (SHA-256 {found[:12]}..., should be {expected[:12]}...); install it again"
        )
    return content
