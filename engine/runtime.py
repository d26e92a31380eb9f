"""ONNX Runtime: a session for each graph, and one chunk of frames through control branch and sampler with all state
explicit."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .adapters import active_adapters, merge_adapters, opens_fine, trust_of
from .bundle import Bundle
from .errors import ModelError, OptionError
from .features import REFERENCES, Features
from .sampler import sample_sb_ve
from .threads import single_threaded_blas

Caches = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ModelState:
    """The caches of the control and fine branches and of each sampler step, the latents that wait for their look-ahead
    (B, 4, 64, K, L), and how many frames have come in, counted up to L."""

    control: Mapping[str, Caches]
    denoiser: tuple[Caches, ...]
    waiting: np.ndarray
    frames: int


@dataclass(frozen=True)
class Control:
    """The outputs of the control and fine branches for a run of frames, cached for all steps of the sampler."""

    outputs: Mapping[str, np.ndarray]


class Runtime:
    """A loaded bundle: `start`, then `step` chunk by chunk. Holds no state of any stream, so threads may share it."""

    def __init__(
        self, bundle: Bundle, blend: Mapping[Path, float] | None = None, device: str = "auto", threads: int = 1
    ) -> None:
        import onnxruntime as ort

        self.bundle = bundle
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads sleep: beside a DAW's own threads, spinning costs more than it saves.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        adapters = active_adapters(blend or {})
        self.trust = trust_of(bundle, adapters)
        with single_threaded_blas():  # the sums' order, and so the weights, must not depend on the number of cores
            graphs = merge_adapters(bundle, adapters)
        providers = _providers(device, ort.get_available_providers())
        try:
            self._sessions = {
                name: ort.InferenceSession(graph, options, providers=providers)
                for name, graph in graphs.items()
                if name != "fine" or bundle.fine_opened or any(opens_fine(adapter) for adapter, _ in adapters)
            }
        except Exception as error:  # ONNX Runtime raises its own unrelated classes
            raise ModelError(
                f"ONNX Runtime cannot load the model in {bundle.folder}: {str(error).splitlines()[0]}"
            ) from error
        used = {session.get_providers()[0] for session in self._sessions.values()}
        self.provider = "cuda" if used == {"CUDAExecutionProvider"} else "cpu"
        if device == "cuda" and self.provider != "cuda":
            raise OptionError(
                "device cuda: ONNX Runtime found no usable CUDA device; install the [cuda] extra, or use --device cpu"
            )
        self._gates = next(i.shape[1] for i in self._sessions["denoiser"].get_inputs() if i.name == "gates")

    def start(self, batch: int, steps: int) -> ModelState:
        """State before the first frame."""
        zeros = {
            name: {key: np.zeros((batch, *shape), np.float32) for key, shape in self.bundle.caches[name].items()}
            for name in self._sessions
        }
        latent, lookahead = self.bundle.latent, self.bundle.lookahead
        waiting = np.zeros((batch, len(REFERENCES), latent.channels, latent.layout.bands, lookahead), np.float32)
        ahead = {name: caches for name, caches in zeros.items() if name != "denoiser"}
        return ModelState(ahead, (zeros["denoiser"],) * steps, waiting, 0)

    def control(self, features: np.ndarray, caches: Mapping[str, Caches]) -> tuple[Control, Mapping[str, Caches]]:
        """One run of the control branch, and of the fine one if an adapter opens it, over features (B, rows, K, N) as
        in features.LAYOUT; caches by graph."""
        batch, _, bands, frames = features.shape
        found: dict[str, np.ndarray] = {}
        after = {}
        for name, before in caches.items():
            outputs, after[name] = _run(self._sessions[name], {"control": features}, before)
            found |= outputs
        if "gates" not in found:
            found["gates"] = np.zeros((batch, self._gates, bands, frames), np.float32)
        return Control(found), after

    def denoise(
        self, x_t: np.ndarray, t: float, references: np.ndarray, control: Control, caches: Caches
    ) -> tuple[np.ndarray, Caches]:
        """One prediction of the true stem's latent (B, 64, K, N) at time t of the diffusion; references (B, 4, 64, K,
        N)."""
        times = np.full(len(x_t), t, np.float32)
        inputs = {"x_t": x_t, "t": times, "references": references, **control.outputs}
        outputs, after = _run(self._sessions["denoiser"], inputs, caches)
        return outputs["estimate"], after

    def step(
        self, features: Features, state: ModelState, recompute_control: bool = False
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, ModelState]:
        """One chunk: repaired latents of the frames that now have their look-ahead, with their stem and mix.

        features of N frames -> (repaired, stem, mix), each (B, 64, K, M), and the next state; M = N, except that the
        first L frames only fill the look-ahead. `recompute_control` runs the control branch again for each step, for
        comparison.
        """
        found, control_after = self.control(features.control, state.control)
        lookahead = self.bundle.lookahead
        joined = np.concatenate([state.waiting, features.references], axis=-1)
        count = features.stem.shape[-1]
        ready, waiting = joined[..., :count], joined[..., count:]
        skip = min(count, lookahead - state.frames)
        references = np.ascontiguousarray(ready[..., skip:])
        stem, mix = (np.ascontiguousarray(references[:, i]) for i in (0, 1))
        frames = min(lookahead, state.frames + count)
        if stem.shape[-1] == 0:
            return stem, stem, mix, ModelState(control_after, state.denoiser, waiting, frames)
        caches = list(state.denoiser)

        def denoise(x_t: np.ndarray, t: float, step: int) -> np.ndarray:
            again = self.control(features.control, state.control)[0] if recompute_control and step else found
            late = Control({name: np.ascontiguousarray(value[..., skip:]) for name, value in again.outputs.items()})
            estimate, caches[step] = self.denoise(x_t, t, references, late, state.denoiser[step])
            return estimate

        times = self.bundle.schedule.times(len(state.denoiser))
        repaired = sample_sb_ve(denoise, stem, self.bundle.schedule, times)
        return repaired, stem, mix, ModelState(control_after, tuple(caches), waiting, frames)


def _run(session: Any, inputs: Mapping[str, np.ndarray], caches: Caches) -> tuple[dict[str, np.ndarray], Caches]:
    names = [output.name for output in session.get_outputs()]
    feed = {**inputs, **{f"{key}.cache": value for key, value in caches.items()}}
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    return outputs, {key: outputs.pop(f"{key}.next") for key in caches}


def _providers(device: str, available: list[str]) -> list[Any]:
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    # The GPU build lists CUDA everywhere, and prints long warnings where there is none: so look for the driver first.
    if device == "cpu" or "CUDAExecutionProvider" not in available or not _has_cuda_driver():
        return ["CPUExecutionProvider"]
    # Full single precision, and no search of algorithms by shape: any split of a stream must give the same output.
    cuda = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _has_cuda_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
