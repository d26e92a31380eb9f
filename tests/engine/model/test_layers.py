"""What the layers guarantee: phase equivariance, causality, and caches that make any split equal the whole."""

from __future__ import annotations

import pytest
import torch
from models import SMALL, lively_net, untrained_net
from stemprover.engine.model.causal import CausalConv2d, Delay, advance, forget, memories
from stemprover.engine.model.network import RepairNet
from stemprover.engine.model.zero_conv import PhaseAwareZeroConv

LOOKAHEAD = SMALL.lookahead


def rotate(x: torch.Tensor, angle: float) -> torch.Tensor:
    """Rotate the phase of re/im halves (B, 2 C, K, N)."""
    z = torch.complex(*x.chunk(2, dim=1)) * torch.exp(torch.tensor(1j * angle))
    return torch.cat([z.real, z.imag], dim=1)


@pytest.mark.parametrize("angle", [0.3, 1.5708, 3.0, -2.2])
def test_the_zero_convolution_commutes_with_a_rotation_of_the_phase(angle: float) -> None:
    torch.manual_seed(0)
    layer = PhaseAwareZeroConv(12, 8)
    x = torch.randn(2, 12, 5, 7)
    assert not layer(x).any(), "silent at the start"
    torch.nn.init.normal_(layer.real)
    torch.nn.init.normal_(layer.imag)
    with torch.no_grad():
        a, b = layer(rotate(x, angle)), rotate(layer(x), angle)
    assert float((a - b).abs().max() / b.abs().max()) < 1e-6


def test_an_odd_width_is_rejected() -> None:
    with pytest.raises(ValueError, match="inputs=3"):
        PhaseAwareZeroConv(3, 4)


@pytest.mark.parametrize("layer", [CausalConv2d(4, 6, dilation=2), CausalConv2d(4, 6, (3, 1), stride=2), Delay(5)])
def test_a_layer_run_in_blocks_equals_the_whole(layer: torch.nn.Module) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 4, 8, 23)
    with torch.no_grad():
        whole = layer(x)
        parts = []
        for block in x.split([1, 2, 3, 10, 7], dim=-1):
            parts.append(layer(block))
            advance(layer)
        forget(layer)
    assert torch.equal(torch.cat(parts, dim=-1), whole) or torch.allclose(torch.cat(parts, dim=-1), whole, atol=1e-6)


def test_a_delay_passes_frames_on_unchanged() -> None:
    x = torch.randn(1, 2, 3, 9)
    out = Delay(4)(x)
    assert torch.equal(out[..., 4:], x[..., :5])
    assert not out[..., :4].any()


def inputs(frames: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    control = torch.randn(1, SMALL.features, SMALL.bands, frames + LOOKAHEAD, generator=generator)
    x_t = torch.randn(1, SMALL.latent, SMALL.bands, frames, generator=generator)
    references = torch.randn(1, 4, SMALL.latent, SMALL.bands, frames, generator=generator)
    return control, x_t, torch.tensor([0.7]), references


def test_the_future_beyond_the_look_ahead_changes_nothing() -> None:
    net, frames, at = lively_net(), 30, 12
    control, x_t, t, references = inputs(frames)
    with torch.no_grad():
        before = net(control, x_t, t, references)
        later = [tensor.clone() for tensor in (control, x_t, references)]
        later[0][..., at + LOOKAHEAD + 1 :] += 3.0
        for tensor in later[1:]:
            tensor[..., at + 1 :] += 3.0
        after = net(later[0], later[1], t, later[2])
    assert torch.equal(before[..., : at + 1], after[..., : at + 1])
    assert not torch.equal(before[..., at + 1 :], after[..., at + 1 :])


def test_the_look_ahead_is_used_to_its_last_frame() -> None:
    net = lively_net()
    control, x_t, t, references = inputs(30)
    changed = control.clone()
    changed[..., 12 + LOOKAHEAD] += 3.0
    with torch.no_grad():
        difference = (net(control, x_t, t, references) - net(changed, x_t, t, references)).abs()
    assert float(difference[..., 12].max()) > 0.0
    assert not difference[..., :12].any()


def test_control_looks_as_far_back_as_ahead_and_no_farther() -> None:
    net = lively_net()
    control = inputs(60)[0]
    changed = control.clone()
    changed[..., 0] += 3.0
    with torch.no_grad():
        a, b = net.control(control), net.control(changed)
    for one, other in zip([*a[0], a[1]], [*b[0], b[1]], strict=True):
        touched = torch.nonzero((one - other).abs().amax(dim=(0, 1, 2)) > 0).max()
        assert int(touched) <= 2 * LOOKAHEAD


def test_no_output_of_the_denoiser_reaches_beyond_its_receptive_field() -> None:
    net = lively_net()
    field = sum(layer.columns for _, layer in memories(net.denoiser))
    control, x_t, t, references = inputs(field + 20)
    changed = x_t.clone()
    changed[..., 0] += 3.0
    with torch.no_grad():
        difference = (net(control, x_t, t, references) - net(control, changed, t, references)).abs().amax(dim=(0, 1, 2))
    assert float(difference[: field // 2].max()) > 0
    assert not difference[field + 1 :].any()


def test_an_untrained_network_returns_the_stem_without_its_leakage_bit_for_bit() -> None:
    control, x_t, t, references = inputs(9)
    with torch.no_grad():
        assert torch.equal(untrained_net()(control, x_t, t, references), references[:, 2])


def test_mask_gains_keep_the_phase() -> None:
    """With the free residual off, every slot of the correction is a real combination of the references."""
    net = lively_net()
    with torch.no_grad():
        net.denoiser.unet.conv_out.conv.weight[: SMALL.latent] = 0.0
        net.denoiser.unet.conv_out.conv.bias[: SMALL.latent] = 0.0
        control, x_t, t, references = inputs(9)
        stem = references[:, 0]
        out = net(control, x_t, t, torch.stack([stem, 3.0 * stem, -0.5 * stem, 2.0 * stem], dim=1))
    a, b = (torch.complex(*z.chunk(2, dim=1)) for z in (out, stem))
    assert float((a * b.conj()).imag.abs().max()) < 1e-5 * float((a * b.conj()).abs().max())
    assert not torch.allclose(out, stem)


def test_gradient_reaches_every_parameter() -> None:
    """Zero-initialised layers block it at first: the first step moves the output layer, the second one the zero
    convolutions behind it, and then it reaches everything."""
    torch.manual_seed(2)
    net = RepairNet(SMALL)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(3):
        control, x_t, t, references = inputs(12, seed=step)
        loss = (net(control, x_t, t, references) - references[:, 1]).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        if step < 2:
            optimiser.step()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


def test_no_layer_gathers_statistics_over_time() -> None:
    """A loud event in the far past leaves no trace, which a group norm over a block could not guarantee."""
    net = lively_net()
    control, x_t, t, references = inputs(140)
    changed = [tensor.clone() for tensor in (control, x_t)]
    for tensor in changed:
        tensor[..., :2] *= 1000.0
    with torch.no_grad():
        a, b = net(control, x_t, t, references), net(changed[0], changed[1], t, references)
    assert torch.equal(a[..., 100:], b[..., 100:])
