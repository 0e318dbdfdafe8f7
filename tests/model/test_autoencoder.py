import numpy as np
import pytest
import torch

from medil.config import PRESETS, ModelConfig
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.model.field import inside_box
from medil.volume import Intensity, Volume, robust_intensity

UNIT = Intensity(0.0, 1.0)


def blobs(grid, shift_mm=(0.0, 0.0, 0.0)):
    """Smooth truth, defined at every point of space."""
    points = centres_mm(grid) - torch.tensor(shift_mm, dtype=torch.float64)
    waves = torch.sin(points[..., 0] / 5) + torch.cos(points[..., 1] / 6 + points[..., 2] / 7)
    return Volume((0.5 + 0.15 * waves).float(), grid)


def awake(config: ModelConfig, seed=0) -> MedIL:
    """A model whose silent layers speak, so that tests see the networks too."""
    torch.manual_seed(seed)
    model = MedIL(config).eval()
    for name in ("decoder.render.amplitude.weight", "encoder.out.weight"):
        torch.nn.init.normal_(model.get_parameter(name), std=0.02)
    return model


@pytest.fixture(scope="module")
def model():
    return awake(PRESETS["test"].model)


@pytest.fixture(scope="module")
def spline():
    """Untrained, the model is its closed form."""
    torch.manual_seed(0)
    return MedIL(PRESETS["test"].model).eval()


GRIDS = {
    "uneven": Grid.from_spacing((37, 30, 11), (0.9, 1.2, 3.0), (-5, 7, 2)),
    "oblique": Grid.from_spacing((30, 31, 29), 1.1).rotated((1, 2, 3), 20),
    "flipped": Grid.from_spacing((30, 31, 29), 1.1, directions=np.diag([-1, -1, 1])),
}


@pytest.mark.parametrize("name", GRIDS)
def test_decode_gives_back_the_native_grid_and_values(spline, name):
    volume = blobs(GRIDS[name])
    latent = spline.encode(volume, UNIT)
    result = spline.decode(latent)
    assert result.grid == volume.grid
    assert (result.data - volume.data).abs().max() < 0.02


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("spacing", [0.8, 1.7, (1.0, 1.0, 2.5)])
def test_rendering_on_another_grid_finds_the_same_points_in_space(spline, name, spacing):
    latent = spline.encode(blobs(GRIDS[name]), UNIT)
    target = latent.native.with_spacing(spacing)
    inner = target.crop([n // 4 for n in target.shape], [max(1, n // 2) for n in target.shape])
    error = spline.decode(latent, inner).data - blobs(inner).data
    assert error.abs().max() < 0.02


def test_rendering_on_an_oblique_grid_finds_the_same_points_in_space(spline):
    latent = spline.encode(blobs(GRIDS["uneven"]), UNIT)
    target = Grid.from_spacing((8, 9, 7), 1.0, latent.native.centre_mm - 4).rotated((1, 0, 1), 33)
    error = spline.decode(latent, target).data - blobs(target).data
    assert error.abs().max() < 0.02


def test_latents_of_one_head_at_two_voxel_sizes_lie_on_one_grid_and_agree(spline):
    one = Grid.from_spacing((40, 40, 40), 1.0)
    latents = [spline.encode(blobs(g), UNIT) for g in (one, one.resized((57, 57, 57)))]
    assert latents[0].grid.is_close(latents[1].grid)
    distance = (latents[0].mean - latents[1].mean).norm() / latents[0].mean.norm()
    assert distance < 0.01


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (17, 9, 13)])
def test_any_shape_goes_through(model, shape):
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    volume = Volume(data, Grid.from_spacing(shape, (1.3, 0.7, 2.0)))
    result = model.decode(model.encode(volume, UNIT))
    assert result.data.shape == shape and result.data.isfinite().all()


def test_untrained_networks_add_nothing_to_the_closed_form(spline):
    latent = spline.encode(blobs(GRIDS["uneven"]), UNIT)
    whole = spline.decode(latent).data
    torch.testing.assert_close(whole, spline.decode(latent, linear_only=True).data)


def test_a_patch_agrees_with_the_whole_away_from_its_faces(model):
    whole = blobs(Grid.from_spacing((96, 40, 40), 1.0))
    part_grid = whole.grid.crop((16, 0, 0), (64, 40, 40))  # 16 mm: four latent cells
    part = Volume(whole.data[16:80], part_grid)
    latents = [model.encode(v, UNIT).mean for v in (whole, part)]
    # Six cells from the cut faces: the receptive field, and the projection's decay, end before.
    inner = latents[0][:, 10:14] - latents[1][:, 6:10]
    assert inner.abs().max() < 1e-4 * latents[0].std()


def test_batch_equals_loop(model):
    grid, latent_grid = GRIDS["uneven"], GRIDS["uneven"].covering(4.0)
    x = torch.rand(3, 1, *grid.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, _ = model.encode_tensor(x, grid, latent_grid)
        apart = torch.cat([model.encode_tensor(v[None], grid, latent_grid)[0] for v in x])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_features_decoded_slab_by_slab_are_those_of_the_whole(model):
    z = torch.randn(2, 8, 11, 5, 6, generator=torch.Generator().manual_seed(1))
    whole = model.decode_features(z).detach()  # with gradients
    with torch.inference_mode():
        slabs = model.decode_features(z)
    torch.testing.assert_close(slabs, whole, rtol=1e-4, atol=1e-5 * float(whole.std()) + 1e-6)


def test_intensities_come_back_in_the_units_of_the_image(spline):
    volume = blobs(GRIDS["oblique"])
    hu = volume.with_data(volume.data * 2000 - 1000)
    latent = spline.encode(hu, Intensity(-1000, 1000))
    assert (spline.decode(latent).data - hu.data).abs().max() < 40


def test_outside_the_encoded_box_is_background(spline):
    latent = spline.encode(blobs(GRIDS["uneven"]), Intensity(-3.0, 1.0))
    wide = latent.native.crop((-20, 0, 0), (30, *latent.native.shape[1:]))
    values = spline.decode(latent, wide).data
    assert (values[:15] == -3.0).all() and (values[20:] > 0).all()


def test_inside_box_equals_testing_every_centre():
    box, grid = GRIDS["uneven"], GRIDS["oblique"]
    index = box.ras_to_index(centres_mm(grid).numpy())
    slow = ((index > -0.5) & (index < np.array(box.shape) - 0.5)).all(-1)
    np.testing.assert_array_equal(inside_box(box, grid).numpy(), slow)


def test_latent_of_other_weights_is_refused(model):
    latent = model.encode(blobs(GRIDS["uneven"]), UNIT)
    other = awake(PRESETS["test"].model, seed=1)
    other.weights_id = "other"
    with pytest.raises(InputError, match="other weights"):
        other.decode(latent)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_voxels_without_a_value_come_back_as_nan_and_do_not_spread(spline, value):
    volume = blobs(GRIDS["uneven"])
    whole = spline.decode(spline.encode(volume, UNIT)).data
    volume.data[0, 0, 0] = volume.data[3, 4, 5] = value
    rendered = spline.decode(spline.encode(volume, UNIT)).data
    assert torch.equal(rendered.isnan(), ~volume.data.isfinite())
    kept = ~rendered.isnan()
    assert (rendered - whole)[kept].abs().max() < 0.1


@pytest.mark.parametrize("low", [-8.0, 3.0])
def test_a_mask_of_nan_moves_neither_the_scale_nor_the_edge(spline, low):
    volume = blobs(GRIDS["uneven"])
    volume = volume.with_data(low + 16 * volume.data)  # a map whose zero is nowhere special
    mask = torch.zeros(volume.grid.shape, dtype=torch.bool)
    mask[2:-2, 2:-2, 2:-2] = True
    errors = {}
    for name, outside in (("nan", torch.nan), ("zero", 0.0)):
        masked = volume.with_data(torch.where(mask, volume.data, outside))
        rendered = spline.decode(spline.encode(masked)).data
        errors[name] = float((rendered - volume.data)[mask].square().mean().sqrt())
    masked = torch.where(mask, volume.data, torch.nan)
    latent = spline.encode(volume.with_data(masked))
    assert latent.intensity == robust_intensity(volume.data[mask])
    assert errors["nan"] < errors["zero"]


def test_values_that_no_network_can_take_are_refused(spline):
    volume = blobs(GRIDS["uneven"])
    data = volume.data.double()
    data[1, 2, 3] = 1e12
    with pytest.raises(InputError, match="immensely beyond its range"):
        spline.encode(volume.with_data(data))
    with pytest.raises(InputError, match="cannot be rendered in float32"):
        spline.encode(volume.with_data(volume.data.double() + 1e10))


def test_constant_and_all_nan_images_are_refused(spline):
    grid = Grid.from_spacing((5, 6, 7), 1.0)
    with pytest.raises(InputError, match="constant"):
        spline.encode(Volume(torch.ones(grid.shape), grid))
    with pytest.raises(InputError, match="NaN"):
        spline.encode(Volume(torch.full(grid.shape, float("nan")), grid))


@pytest.mark.parametrize(
    "wrong",
    [{"operator": "magic"}, {"encoder_operator": "liif"}, {"latent_channels": 4},
     {"latent_spacing_mm": -1.0}],
    ids=["operator", "encoder", "channels", "spacing"],
)  # fmt: skip
def test_impossible_configurations_are_refused(wrong):
    with pytest.raises(InputError):
        MedIL(ModelConfig(**wrong))


def test_an_image_too_large_for_the_memory_is_refused_with_numbers(spline, monkeypatch):
    monkeypatch.setattr("medil.system.memory.free_memory_bytes", lambda: 10**6)
    with pytest.raises(InputError, match=r"this image needs at least \d.* GB of memory"):
        volume = blobs(Grid.from_spacing((37, 30, 29), 1.0))
        spline.encode(volume, UNIT)


def test_few_but_huge_voxels_need_memory_for_the_box_they_fill(spline, monkeypatch):
    monkeypatch.setattr("medil.system.memory.free_memory_bytes", lambda: 10**8)
    grid = Grid.from_spacing((20, 20, 20), 20.0)
    with pytest.raises(InputError, match="memory"):
        spline.encode(Volume(torch.rand(grid.shape), grid))
