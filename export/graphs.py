"""Writes the ONNX graphs of control branch, denoiser and fine branch, with their caches as inputs and outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..engine.errors import ExportError
from ..engine.features import REFERENCES
from ..engine.model.causal import Memory, forget, memories
from ..engine.model.config import ModelConfig
from ..engine.model.network import RepairNet

OPSET = 18  # 21 and 23 run about a tenth slower in ONNX Runtime


def cache_shapes(model: nn.Module, inputs: tuple[Any, ...]) -> dict[str, list[int]]:
    """Name of each layer with memory, and [channels, bands, columns] of its cache, found by running the model once."""
    forget(model)
    with torch.no_grad():
        model(*inputs)
    shapes = {}
    for name, layer in memories(model):
        if layer.next_cache is None:
            raise ExportError(f"layer {name} did not run, so the shape of its cache is unknown; this is a bug")
        shapes[name] = list(layer.next_cache.shape[1:])
        layer.next_cache = None
    return shapes


@contextmanager
def holding(layers: list[Memory], caches: tuple[Tensor, ...]) -> Iterator[None]:
    """Give the layers these caches for the duration of the block, and none afterwards."""
    for layer, cache in zip(layers, caches, strict=True):
        layer.cache = cache
    try:
        yield
    finally:
        for layer in layers:
            layer.cache = layer.next_cache = None


class BranchGraph(nn.Module):
    """(control, *caches) -> (outputs, *next caches). Outputs are residual.0 ... residual.<n> and tokens for the control
    branch, and gates (mask gains) for the fine branch."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.model = branch

    def forward(self, control: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        layers = [layer for _, layer in memories(self.model)]
        with holding(layers, caches):
            found = self.model(control)
            outputs = (found,) if isinstance(found, Tensor) else (*found[0], found[1])
            return (*outputs, *[_kept(layer) for layer in layers])


class DenoiserGraph(nn.Module):
    """(x_t, t, references, residual.0 ... residual.<n>, tokens, gates, *caches) -> (estimate, *next caches)."""

    def __init__(self, net: RepairNet) -> None:
        super().__init__()
        self.model = net.denoiser
        self.count = len(net.config.residuals)

    def forward(self, x_t: Tensor, t: Tensor, references: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        layers = [layer for _, layer in memories(self.model)]
        residuals, (tokens, gates) = list(rest[: self.count]), rest[self.count : self.count + 2]
        with holding(layers, rest[self.count + 2 :]):
            estimate = self.model(x_t, t, references, residuals, tokens, gates)
            return (estimate, *[_kept(layer) for layer in layers])


#: By name, which is that of the file, of the network's part, and the prefix of an adapter's layers.
GRAPHS: dict[str, Callable[[RepairNet], nn.Module]] = {
    "control": lambda net: BranchGraph(net.control),
    "denoiser": DenoiserGraph,
    "fine": lambda net: BranchGraph(net.fine),
}


def _kept(layer: Memory) -> Tensor:
    assert layer.next_cache is not None
    return layer.next_cache


def example_inputs(config: ModelConfig, batch: int = 2, frames: int = 5, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the graphs, without caches."""
    generator = torch.Generator().manual_seed(seed)
    bands = config.bands
    shapes: dict[str, tuple[int, int]] = {
        "control": (config.features, bands),
        "x_t": (config.latent, bands),
        **{f"residual.{i}": (width, config.bands_at(level)) for i, (level, width) in enumerate(config.residuals)},
        "tokens": (config.tokens, config.bands_at(2)),
        "gates": (config.gates, bands),
    }
    inputs = {name: torch.randn(batch, *shape, frames, generator=generator) for name, shape in shapes.items()}
    inputs["t"] = torch.rand(batch, generator=generator)
    inputs["references"] = torch.randn(batch, len(REFERENCES), config.latent, bands, frames, generator=generator)
    return inputs


def graph_inputs(name: str, config: ModelConfig) -> list[str]:
    """Input names of a graph in order, without caches."""
    return ["x_t", "t", "references", *_controls(config), "gates"] if name == "denoiser" else ["control"]


def graph_outputs(name: str, config: ModelConfig) -> list[str]:
    """Output names of a graph in order, without caches."""
    return {"control": _controls(config), "fine": ["gates"], "denoiser": ["estimate"]}[name]


def _controls(config: ModelConfig) -> list[str]:
    return [*[f"residual.{i}" for i in range(len(config.residuals))], "tokens"]


def write_graph(name: str, net: RepairNet, path: Path) -> dict[str, list[int]]:
    """Export one of GRAPHS to a file with dynamic batch and frames; returns the shapes of its caches."""
    graph: nn.Module = GRAPHS[name](net.eval())
    example = example_inputs(net.config)
    plain_in, plain_out = graph_inputs(name, net.config), graph_outputs(name, net.config)
    inputs = tuple(example[key] for key in plain_in)
    plain: tuple[Any, ...] = (*inputs[:3], list(inputs[3:-2]), *inputs[-2:]) if name == "denoiser" else inputs
    shapes = cache_shapes(getattr(net, name), plain)
    caches = tuple(torch.randn(inputs[0].shape[0], *shape) for shape in shapes.values())
    cache_in, cache_out = [f"{key}.cache" for key in shapes], [f"{key}.next" for key in shapes]
    names_in, names_out = plain_in + cache_in, plain_out + cache_out
    axes = {key: {0: "batch", 3: "frames"} for key in (*plain_in, *plain_out) if key != "t"}
    axes |= {"t": {0: "batch"}, "references": {0: "batch", 4: "frames"}} if name == "denoiser" else {}
    axes |= {key: {0: "batch"} for key in (*cache_in, *cache_out)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (*inputs, *caches),
            str(path),
            input_names=names_in,
            output_names=names_out,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=False,
        )
    tidy(path)
    return shapes


def tidy(path: Path) -> None:
    """Name the initialisers as the torch parameters, and remove every trace of this machine from the file."""
    model = onnx.load(path)
    model.producer_name = model.doc_string = model.graph.doc_string = ""
    model.graph.name = path.stem
    del model.metadata_props[:]
    renamed = {item.name: item.name.removeprefix("model.") for item in model.graph.initializer}
    for item in model.graph.initializer:
        item.name = renamed[item.name]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for i, source in enumerate(node.input):
            node.input[i] = renamed.get(source, source)
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    onnx.checker.check_model(model)
    onnx.save(model, path)
