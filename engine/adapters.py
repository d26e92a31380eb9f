"""LoRA adapters on disk, merged into the graphs' initialisers at load; torch is not needed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .bundle import GRAPHS, Bundle
from .constants import MAX_WEIGHT
from .errors import ModelError, OptionError
from .trust import Trust, TrustCurve


@dataclass(frozen=True)
class Adapter:
    """A LoRA: for each layer the factors A (r, in, ...) and B (out, r, ...), and the common scale alpha / r; and its
    trust curve, if one was fitted."""

    path: Path
    factors: Mapping[str, tuple[np.ndarray, np.ndarray]]
    scale: float
    base: str
    trust_curve: TrustCurve | None = None

    @classmethod
    def load(cls, path: Path) -> Adapter:
        """Read an adapter.safetensors. Raises ModelError."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                meta = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except FileNotFoundError as error:
            raise ModelError(f"adapter {path} is missing; install the preset again") from error
        except (OSError, SafetensorError) as error:
            raise ModelError(f"adapter {path} is damaged ({error}); install the preset again") from error
        if meta.get("format") != "stemprover-lora-3":
            raise ModelError(f"adapter {path}: this version cannot read format {meta.get('format')!r}; train it again")
        layers = sorted({key.rpartition(".lora_")[0] for key in tensors})
        try:
            factors = {layer: (tensors[f"{layer}.lora_A"], tensors[f"{layer}.lora_B"]) for layer in layers}
            trust_curve = TrustCurve.from_dict(json.loads(meta["trust"])) if "trust" in meta else None
            return cls(path, factors, float(meta["scale"]), meta["base"], trust_curve)
        except (KeyError, TypeError, ValueError, OptionError) as error:
            raise ModelError(f"adapter {path}: {error} is missing or wrong; install the preset again") from error

    @property
    def neutral(self) -> bool:
        """Whether the adapter changes nothing, like one that was never trained."""
        return all(not b.any() for _, b in self.factors.values())

    def delta(self, layer: str) -> np.ndarray:
        """What the adapter adds to one layer's kernel (out, in, ...): scale * B A."""
        a, b = (factor.astype(np.float32) for factor in self.factors[layer])
        product = b.reshape(b.shape[0], -1) @ a.reshape(a.shape[0], -1)
        return self.scale * product.reshape(b.shape[0], *a.shape[1:])


def write_adapter(path: Path, tensors: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """Write tensors and metadata as an adapter file: to a temporary file that is renamed, with a new file's usual
    permissions."""
    from safetensors.numpy import save_file

    part = path.with_name(f".{path.name}.part")
    part.touch()
    mode = part.stat().st_mode
    save_file(dict(tensors), part, metadata=dict(meta))
    part.chmod(mode)  # safetensors makes it readable by its owner only
    os.replace(part, path)


def fingerprint(kernels: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the base kernels that an adapter changes, by layer: an adapter only fits the weights that it was
    trained on."""
    digest = hashlib.sha256()
    for layer in sorted(kernels):
        digest.update(layer.encode() + np.ascontiguousarray(kernels[layer], np.float32).tobytes())
    return digest.hexdigest()


def active_adapters(blend: Mapping[Path, float]) -> list[tuple[Adapter, float]]:
    """The adapters of a blend that change something, with their weights. Raises OptionError for a weight outside
    0..1.5 and ModelError for a file that is not an adapter."""
    for path, weight in blend.items():
        if not 0.0 <= weight <= MAX_WEIGHT:
            raise OptionError(f"weight {weight:g} of {path.parent.name} is out of range; use 0 to {MAX_WEIGHT:g}")
    adapters = [(Adapter.load(path), weight) for path, weight in blend.items() if weight]
    return [(adapter, weight) for adapter, weight in adapters if not adapter.neutral]


def opens_fine(adapter: Adapter) -> bool:
    """Whether an adapter needs the fine branch to run."""
    return any(layer.startswith("fine.") and b.any() for layer, (_, b) in adapter.factors.items())


def trust_of(bundle: Bundle, adapters: Sequence[tuple[Adapter, float]]) -> Trust:
    """The trust of a blend: each adapter's own trust curve, or the base's where it has none. Where one has neither,
    everything is let through."""
    found = [(adapter.trust_curve or bundle.trust_curve, weight) for adapter, weight in adapters]
    known = tuple((trust_curve, weight) for trust_curve, weight in found if trust_curve is not None)
    return Trust(trust_curves=known, base=bundle.trust_curve) if len(known) == len(found) else Trust()


def merge_adapters(bundle: Bundle, adapters: Sequence[tuple[Adapter, float]]) -> dict[str, bytes]:
    """The graphs with W + sum of weight * scale * B A in their initialisers.

    adapters: from `active_adapters`. Raises ModelError for one that does not fit.
    """
    if not adapters:
        return dict(bundle.graphs)
    import onnx
    from onnx import numpy_helper

    models = {name: onnx.load_from_string(bundle.graphs[name]) for name in GRAPHS}
    places = {
        f"{name}.{item.name.removesuffix('.weight')}": item
        for name in GRAPHS
        for item in models[name].graph.initializer
    }
    kernels = {layer: numpy_helper.to_array(item) for layer, item in places.items()}
    changed: dict[str, np.ndarray] = {}
    for adapter, weight in adapters:
        for layer in adapter.factors:
            if layer not in kernels:
                raise ModelError(
                    f"adapter {adapter.path}: the model has no layer {layer}; it belongs to another base model"
                )
            delta = adapter.delta(layer)
            if delta.shape != kernels[layer].shape:
                raise ModelError(
                    f"adapter {adapter.path}: {layer} is {delta.shape}, the model has {kernels[layer].shape}"
                )
            changed[layer] = changed.get(layer, kernels[layer]) + np.float32(weight) * delta
        if adapter.base != fingerprint({layer: kernels[layer] for layer in adapter.factors}):
            raise ModelError(f"adapter {adapter.path} was trained on another base model; train it again on this one")
    for layer, kernel in changed.items():
        places[layer].CopyFrom(numpy_helper.from_array(kernel, places[layer].name))
    return {name: model.SerializeToString() for name, model in models.items()}
