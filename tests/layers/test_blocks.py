"""Blocks whose answer for a voxel does not depend on what lies far away."""

import pytest
import torch

from medil.layers.blocks import (
    ChannelNorm,
    Conv3d,
    ResidualBlock,
    activate_into,
    convolved,
    depth_to_space,
    residual_blocks,
    space_to_depth,
    zero_init,
)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 16, 9, 10, 11, generator=torch.Generator().manual_seed(3))


def test_the_norm_gives_each_voxel_unit_power_over_its_channels(x):
    power = ChannelNorm(16)(x).square().mean(dim=1)
    torch.testing.assert_close(power, torch.ones_like(power), atol=1e-4, rtol=0)


def test_the_norm_of_a_voxel_ignores_every_other_voxel(x):
    changed = x.clone()
    changed[:, :, 5:] *= 100
    torch.testing.assert_close(ChannelNorm(16)(changed)[:, :, :5], ChannelNorm(16)(x)[:, :, :5])


def test_a_patch_with_its_halo_equals_the_whole(x):
    body = residual_blocks(16, depth=1).double()
    x = x.double()
    whole, patch = body(x), body(x[:, :, 1:8])
    torch.testing.assert_close(patch[:, :, 2:-2], whole[:, :, 3:6], atol=1e-12, rtol=0)


def test_a_block_with_a_silent_end_is_the_identity(x):
    block = ResidualBlock(16)
    zero_init(block.body[-1])
    assert torch.equal(block(x), x)


def test_space_to_depth_puts_the_eight_voxels_of_a_block_into_one_cell_s_channels():
    index = torch.arange(4 * 6 * 8.0).reshape(1, 1, 4, 6, 8)
    cells = space_to_depth(index, 2)  # [1, 8, 2, 3, 4]
    assert cells[0, :, 1, 2, 3].tolist() == index[0, 0, 2:4, 4:6, 6:8].flatten().tolist()


def test_depth_to_space_undoes_it(x):
    even = x[..., :8, :10, :10]
    assert torch.equal(depth_to_space(space_to_depth(even, 2), 2), even)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 3, 1, 5, 7), (1, 3, 6, 5, 4), (2, 3, 4, 5, 6)])
def test_a_fast_convolution_and_its_gradients_are_the_plain_ones(shape, dtype):
    torch.manual_seed(2)
    fast, x = Conv3d(3, 5, 3, padding=1).to(dtype), torch.randn(shape, dtype=dtype)
    weights = list(fast.parameters())
    wanted = torch.nn.functional.conv3d(x.double(), *(w.double() for w in weights), padding=1)
    tolerance = {"atol": 1e-5 if dtype == torch.float32 else 1e-12, "rtol": 0}
    for found in (fast(x), convolved(fast, x, (1, 1, 1))):
        torch.testing.assert_close(found.double(), wanted, **tolerance)
    with torch.inference_mode():
        assert torch.equal(fast(x), found)
    given = torch.randn_like(wanted)
    slopes = torch.autograd.grad(found, weights, given.to(dtype))
    tolerance["atol"] *= 100  # sums over all voxels
    for slope, true in zip(slopes, torch.autograd.grad(wanted, weights, given), strict=True):
        torch.testing.assert_close(slope.double(), true.double(), **tolerance)


def test_a_convolution_without_onednn_is_the_same(monkeypatch):
    layer, x = Conv3d(4, 4, 3, padding=1), torch.rand(1, 4, 3, 6, 5)
    fast, thin = layer(x), convolved(layer, x, (0, 1, 1))
    monkeypatch.setattr("medil.layers.blocks.ONEDNN", False)
    torch.testing.assert_close(layer(x), fast, atol=1e-6, rtol=0)
    torch.testing.assert_close(convolved(layer, x, (0, 1, 1)), thin, atol=1e-6, rtol=0)
    torch.testing.assert_close(thin, fast[:, :, 1:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize("outer", [0, 1, 2])
def test_a_convolution_takes_memory_as_it_lies(x, outer):
    layer = Conv3d(16, 4, 3, padding=1)
    lies = torch.empty(2, *x.transpose(2, outer + 2).shape[2:], 16).movedim(-1, 1)
    lies = lies.transpose(2, outer + 2).copy_(x)
    assert lies.stride() != x.stride()
    with torch.inference_mode():
        found = convolved(layer, lies, (1, 0, 1))
    assert max(found.stride()[2:]) == found.stride(outer + 2)
    torch.testing.assert_close(found, layer(x)[..., 1:-1, :], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_in_place_is_silu_of_the_norm(x, dtype):
    norm = ChannelNorm(16)
    torch.nn.init.normal_(norm.gain)
    wanted = torch.nn.functional.silu(norm(x.to(dtype).float()))
    tolerance = {torch.float32: 1e-6, torch.bfloat16: 2e-2}[dtype]
    for memory in (torch.contiguous_format, torch.channels_last_3d):
        given = x.to(dtype).contiguous(memory_format=memory)
        room = torch.full((2, 16, 11, 10, 11), 7.0).to(dtype).contiguous(memory_format=memory)
        with torch.inference_mode():
            activate_into(room[:, :, 1:-1], given, norm)
        torch.testing.assert_close(room[:, :, 1:-1].float(), wanted, atol=tolerance, rtol=tolerance)
        assert (room[:, :, [0, -1]] == 7).all()
        assert torch.equal(given, x.to(dtype))
