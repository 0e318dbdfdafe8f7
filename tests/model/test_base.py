"""The closed form that every arm may stand on."""

import pytest
import torch

from medil.config import ModelConfig
from medil.grid import Grid, centres_mm
from medil.model.base import MIDDLE, RESIDUAL_GAIN, LatentAutoencoder, haar_matrix

GRID = Grid.from_spacing((17, 20, 9), (1.0, 1.2, 2.5), (1, 2, 3)).rotated((1, 2, 3), 17)
LATENT_GRID = GRID.covering(4.0).shifted((0.3, -0.9, 0.4))


class Silent(LatentAutoencoder):
    """An arm whose networks say nothing, and which notes what its encoder was shown."""

    def encode_features(self, images, grid, latent_grid):
        self.seen = images
        return images.new_zeros(len(images), 2 * self.config.latent_channels, *latent_grid.shape)

    def decode_residual(self, z, latent_grid, grid):
        return z.new_zeros(len(z), 1, *grid.shape)


def smooth(grid=GRID):
    points = centres_mm(grid)
    waves = torch.sin(points[..., 0] / 5) + torch.cos(points[..., 1] / 6 + points[..., 2] / 7)
    return (0.5 + 0.15 * waves).float()[None, None]


def test_alone_it_gives_back_a_smooth_image():
    arm, x = Silent(ModelConfig()), smooth()
    mean, _ = arm.encode_tensor(x, GRID, LATENT_GRID)
    assert (arm.decode_tensor(mean, LATENT_GRID, GRID) - x).abs().max() < 0.02


def test_the_encoder_is_shown_the_image_and_what_the_projection_left():
    arm, x = Silent(ModelConfig()), smooth()
    mean, _ = arm.encode_tensor(x, GRID, LATENT_GRID)
    residual = x - arm.splines.render(mean, LATENT_GRID, GRID)
    expected = torch.cat([x - MIDDLE, RESIDUAL_GAIN * residual], dim=1)
    torch.testing.assert_close(arm.seen, expected)
    assert arm.channels_in == 2


def test_without_it_silence_is_the_middle_intensity():
    arm, x = Silent(ModelConfig(closed_form=False)), smooth()
    mean, log_var = arm.encode_tensor(x, GRID, LATENT_GRID)
    assert not mean.any() and (log_var == arm.config.log_var_start).all()
    assert (arm.decode_tensor(mean, LATENT_GRID, GRID) == MIDDLE).all()
    torch.testing.assert_close(arm.seen, x - MIDDLE)
    assert (arm.latent_gain == 1).all()


def test_forward_is_encode_then_noise_then_decode():
    arm, x = Silent(ModelConfig(log_var_start=-2.0)), smooth()
    noise = torch.randn(1, 8, *LATENT_GRID.shape, generator=torch.Generator().manual_seed(0))
    target = GRID.with_spacing(1.7)
    estimate, mean, log_var = arm(x, GRID, LATENT_GRID, target, noise)
    z = mean + noise * torch.tensor(-1.0).exp()  # sigma is exp(log_var / 2)
    torch.testing.assert_close(estimate, arm.decode_tensor(z, LATENT_GRID, target))
    assert (log_var == -2).all()


def test_moving_the_image_and_the_latent_grid_together_keeps_the_latent():
    arm, x, move = Silent(ModelConfig()), smooth(), (31.0, -7.7, 2.2)
    here, _ = arm.encode_tensor(x, GRID, LATENT_GRID)
    there, _ = arm.encode_tensor(x, GRID.shifted(move), LATENT_GRID.shifted(move))
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)


def test_haar_is_orthonormal_and_starts_with_the_mean():
    haar = haar_matrix(8)
    torch.testing.assert_close(haar @ haar.T, torch.eye(8))
    torch.testing.assert_close(haar[0], torch.full((8,), 8**-0.5))


def test_an_arm_without_an_encoder_says_so():
    with pytest.raises(TypeError, match="LatentAutoencoder"):
        LatentAutoencoder(ModelConfig())
