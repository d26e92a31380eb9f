"""A pretrained U-Net as the denoiser: what is kept of it, what it sees, and which folders are rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bases import save_unet, tiny_unet
from models import SMALL
from stemprover.engine.errors import ModelError, OptionError
from stemprover.engine.model.base import load_base, with_base
from stemprover.engine.model.causal import CausalConv2d, advance, forget, memories
from stemprover.engine.model.config import ModelConfig
from stemprover.engine.model.lora import add_adapter
from stemprover.engine.model.network import RepairNet
from stemprover.engine.model.unet import make_base_causal
from torch import nn

#: Other members of the family: Stable Diffusion 2 (heads by level, linear projections), XL (several transformer blocks,
#: layers that its prompt feeds), a distilled one without a middle block, one with two levels, one with six.
FAMILY = {
    "1": {},
    "2": {"attention_head_dim": (1, 2, 2, 4), "use_linear_projection": True},
    "xl": {
        "block_out_channels": (8, 16, 16), "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
        "up_block_types": (*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"), "transformer_layers_per_block": (1, 2, 3),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 32,
        "use_linear_projection": True, "attention_head_dim": (1, 2, 2),
    },
    "distilled": {"mid_block_type": None, "layers_per_block": 1, "time_cond_proj_dim": 6, "in_channels": 9},
    "two levels": {
        "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "layers_per_block": (1, 2),
    },
    "six levels": {
        "block_out_channels": (8,) * 6, "down_block_types": ("CrossAttnDownBlock2D",) * 6,
        "up_block_types": ("CrossAttnUpBlock2D",) * 6, "layers_per_block": 1,
    },
}  # fmt: skip


def base_net(folder: Path, lively: bool = True) -> RepairNet:
    """A network with the folder's U-Net. `lively` puts random weights where it starts with zeros."""
    config = with_base(SMALL, folder)
    torch.manual_seed(3)
    net = RepairNet(config).eval()
    net.denoiser.unet = load_base(folder, config)
    if lively:
        with torch.no_grad():
            for name, parameter in net.named_parameters():
                if not parameter.any() and not name.endswith("bias"):
                    parameter.normal_(std=0.05)
    return net


def inputs(frames: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    control = torch.randn(1, SMALL.features, 84, frames + SMALL.lookahead, generator=generator)
    x_t = torch.randn(1, SMALL.latent, 84, frames, generator=generator)
    references = torch.randn(1, 4, SMALL.latent, 84, frames, generator=generator)
    return control, x_t, torch.tensor([0.7]), references


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_causal_convolution_equals_the_original_on_a_steady_signal(kernel: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=bias)
    causal = CausalConv2d.of(conv)
    steady = torch.randn(2, 3, 8, 1).expand(-1, -1, -1, 21)
    edge = kernel[1] - 1
    with torch.no_grad():
        assert torch.allclose(causal(steady)[..., edge:-edge], conv(steady)[..., edge:-edge], atol=1e-5)
        past = torch.zeros(1, 3, 8, 21)
        past[..., :10] = torch.randn(1, 3, 8, 10)
        present = 10 + kernel[1] // 2  # from here on the original sees only zeros
        bare = causal(past) - (causal.conv.bias[:, None, None] if bias else 0.0)
        assert not bare[..., present:].abs().max() > 1e-6, "taps on the past keep their places"


@pytest.mark.parametrize("kind", ["1", "2", "two levels"])
def test_the_causal_u_net_equals_the_pretrained_one_on_a_steady_signal(kind: str) -> None:
    """Convolutions, norms, attention and resampling keep their weights. Both therefore agree on an image that is
    constant along its time axis, once the past is filled. (The original pads circularly, so its image has no edges in
    time.)"""
    channels = {"in_channels": SMALL.latent, "out_channels": 10}
    original, causal = tiny_unet(**FAMILY[kind] | channels), tiny_unet(**FAMILY[kind] | channels)
    out = causal.conv_out
    make_base_causal(causal)
    causal.conv_out = CausalConv2d.of(out)
    for layer in original.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[1] > 1:
            layer.padding = (1, 0)
            layer.register_forward_pre_hook(lambda _, x: (nn.functional.pad(x[0], (1, 1, 0, 0), mode="circular"),))
    past = sum(layer.columns for _, layer in memories(causal))
    x, tokens = torch.randn(1, SMALL.latent, 84, 1), torch.randn(1, 12, 21, 1)
    with torch.no_grad():
        image, flat = x.expand(-1, -1, -1, 16), tokens[..., 0].transpose(1, 2)
        expected = original(image, 700.0, encoder_hidden_states=flat).sample[..., -1]
        long = past + 2
        found = causal(x.expand(-1, -1, -1, long), 700.0, encoder_hidden_states=tokens.expand(-1, -1, -1, long))
    assert float((found.sample[..., -1] - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("kind", list(FAMILY))
def test_every_u_net_of_the_family_is_causal_and_streams(kind: str, tmp_path: Path) -> None:
    net = base_net(save_unet(tmp_path, **FAMILY[kind]))
    control, x_t, t, references = inputs(12)
    with torch.no_grad():
        whole = net(control, x_t, t, references)
        assert not torch.allclose(whole, references[:, 2], atol=1e-3)
        later = x_t.clone()
        later[..., 7:] += 3.0
        assert torch.equal(net(control, later, t, references)[..., :7], whole[..., :7])
        residuals, tokens = net.control(control)
        assert [tuple(r.shape[1:3]) for r in residuals] == [
            (w, net.config.bands_at(n)) for n, w in net.config.residuals
        ]
        fine = net.fine(control)
        forget(net)
        parts, at = [], 0
        for size in (1, 4, 2, 5):
            span, ahead = slice(at, at + size), slice(at + net.config.lookahead, at + size + net.config.lookahead)
            cut = [r[..., ahead] for r in residuals], tokens[..., ahead], fine[..., ahead]
            parts.append(net.denoiser(x_t[..., span], t, references[..., span], *cut))
            advance(net.denoiser)
            at += size
    assert torch.allclose(torch.cat(parts, dim=-1), whole, atol=1e-5)


def test_pretrained_weights_are_kept_and_new_layers_start_silent(tmp_path: Path) -> None:
    net = base_net(save_unet(tmp_path), lively=False)
    control, x_t, t, references = inputs(5)
    with torch.no_grad():
        assert torch.equal(net(control, x_t, t, references), references[:, 2]), (
            "the stem without its leakage, bit for bit"
        )
    pretrained, own = tiny_unet().state_dict(), net.denoiser.unet.state_dict()
    key = "down_blocks.1.attentions.0.{}transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(own[key.format("picture.")], pretrained[key.format("")])
    conv = "up_blocks.2.resnets.1.conv1.{}weight"
    assert torch.allclose(own[conv.format("conv.")].sum(-1), pretrained[conv.format("")].sum(-1), atol=1e-6)
    assert sum(p.numel() for p in net.denoiser.parameters()) > 0.9 * sum(p.numel() for p in pretrained.values())


def test_gradient_reaches_every_parameter_of_a_base(tmp_path: Path) -> None:
    net = base_net(save_unet(tmp_path))
    control, x_t, t, references = inputs(6)
    (net(control, x_t, t, references) - references[:, 1]).abs().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None]


def test_an_adapter_covers_the_layers_of_a_base(tmp_path: Path) -> None:
    names = [
        name for name, p in add_adapter(base_net(save_unet(tmp_path)), rank=2).named_parameters() if p.requires_grad
    ]
    for layer in ("attn1.to_q", "attn2.to_v", "attn1.to_out.0", "conv1.conv", "conv2.conv"):
        assert any(f"denoiser.unet.down_blocks.0.{part}" in name and f"{layer}.lora_A" in name
                   for name in names for part in ("attentions", "resnets")), layer  # fmt: skip


def test_sizes_with_a_base_survive_json(tmp_path: Path) -> None:
    config = with_base(ModelConfig(), save_unet(tmp_path))
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.tokens == 12
    assert config.denoiser == (8, 16, 16, 24)
    assert ModelConfig().residuals == [(0, 32), (0, 32), (1, 32), (1, 48), (2, 48), (2, 64), (2, 64)]
    with pytest.raises(ModelError, match="three levels"):
        ModelConfig(denoiser=(16, 16))


def wrong_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (shutil.rmtree, "no such folder; pass a folder that"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "is a file; load it"),
        (lambda folder: (folder / "config.json").unlink(), "neither config.json nor unet/config.json; pass"),
        (lambda folder: (folder / "config.json").rename(folder / "model_index.json"), "without unet/; choose"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as a configuration"),
        (lambda folder: (folder / "config.json").write_text("[]"), "cannot be read as a configuration"),
        (wrong_config(_class_name="FluxTransformer2DModel"), "describes a FluxTransformer2DModel; pass"),
        (wrong_config(down_block_types=["AttnDownBlock2D"] * 4), "'AttnDownBlock2D', whose attention.*; choose"),
        (wrong_config(up_block_types=["SimpleCrossAttnUpBlock2D"] * 4), "up_block_types has 'SimpleCross.*; choose"),
        (wrong_config(mid_block_type="UNetMidBlock2DSimpleCrossAttn"), "mid_block_type has .*; choose"),
        (wrong_config(down_block_types=["DownBlock2D"] * 4), "no CrossAttnDownBlock2D .*; choose"),
        (wrong_config(block_out_channels=[8] * 7), "has 7 levels, but 84 bands allow 2 to 6; choose"),
        (wrong_config(block_out_channels=[8, 16, 16, 25]), "block_out_channels has 25, but widths must be even"),
        (wrong_config(cross_attention_dim=[12, 12, 12, 24]), r"cross_attention_dim=\[12, 12, 12, 24\] differs"),
        (wrong_config(dual_cross_attention=True), "dual_cross_attention=True is not supported; choose"),
        (wrong_config(block_out_channels=12), "block_out_channels=12"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").unlink(), "the weights cannot be read"),
        (lambda folder: (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 99), "weights cannot be"),
    ],
)  # fmt: skip
def test_an_unusable_folder_gives_a_one_line_error(change: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    folder = save_unet(tmp_path / "unet")
    change(folder)
    with pytest.raises(OptionError, match=says) as caught:
        load_base(folder, with_base(SMALL, folder))
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = save_unet(tmp_path) / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["mid_block.resnets.0.conv1.weight"], weights["conv_in.weight"]
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(OptionError, match=r"lacks 1 weights, the first is mid_block.resnets.0.conv1.weight"):
        load_base(tmp_path, with_base(SMALL, tmp_path))


def test_a_pipeline_folder_and_half_precision_weights_are_read(tmp_path: Path) -> None:
    tiny_unet().half().save_pretrained(tmp_path / "unet", variant="fp16")
    unet = load_base(tmp_path, with_base(SMALL, tmp_path))
    assert all(p.dtype == torch.float32 for p in unet.parameters())


def test_a_base_too_large_for_one_file_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemprover.engine.model.base.LARGEST", 2**19)
    folder = save_unet(tmp_path)
    with pytest.raises(OptionError, match=r"has 0 million weights \(0.0 GiB\), .* choose a smaller"):
        load_base(folder, with_base(SMALL, folder))
