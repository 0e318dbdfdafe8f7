"""The continuous image: exact at points, the same on grids, with gradients, and in mm."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors import safe_open

from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.latent import Latent
from medil.layers import reference
from medil.layers.operators import OPERATORS
from medil.model.autoencoder import MedIL
from medil.model.base import MIDDLE
from medil.model.weights import release_path
from medil.volume import Intensity, load, save, save_slabs

CELLS = Grid.from_spacing((5, 4, 6), 4.0, (1, 2, 3)).rotated((1, 2, 3), 17)
UNITS = Intensity(-3.0, 7.0)


def awake(operator="integrated", **more) -> MedIL:
    """A model in double precision in which every layer speaks."""
    torch.manual_seed(0)
    model = MedIL(replace(preset("test").model, operator=operator, **more)).eval().double()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def latent_of(model: MedIL, requires_grad: bool = False) -> Latent:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(8, *CELLS.shape, generator=generator, dtype=torch.float64)
    native = CELLS.with_spacing((1.3, 2.1, 3.0))
    return Latent(z.requires_grad_(requires_grad), z, CELLS, native, UNITS, None, model.weights_id)


def some_points(count: int = 6) -> torch.Tensor:
    """[Q, 3] RAS+ mm all over the box, some within a cell of its faces."""
    index = np.random.default_rng(0).uniform(-0.5, np.array(CELLS.shape) - 0.5, (count, 3))
    return torch.from_numpy(CELLS.index_to_ras(index))


def test_a_point_has_the_value_of_the_slow_loops():
    model = awake()
    latent, render = latent_of(model), model.decoder.render
    with torch.no_grad():
        amplitudes = render.amplitude(model.decode_features(latent.mean[None]))[0]
        spline, nodes = model.splines.coefficients(latent.mean[None], CELLS)
    amplitudes = amplitudes.reshape(3, 3, 3, *nodes.shape).numpy()
    for point, value in zip(some_points(), model.field(latent).at(some_points()), strict=True):
        slow = MIDDLE + reference.cubic_spline(spline[0, 0, 0, 0, 0].numpy(), nodes, point.numpy())
        slow += reference.integrated_lte_at(amplitudes, nodes, point.numpy())
        assert float(value) == pytest.approx(float(UNITS.inverse(torch.tensor(slow))), abs=1e-6)


@pytest.mark.parametrize("linear_only", [False, True])
def test_the_mean_over_a_voxel_is_what_a_grid_holds(linear_only):
    model = awake()
    field = model.field(latent_of(model), linear_only)
    grid = CELLS.with_spacing((1.3, 0.9, 2.2))
    voxels = field.on(grid).data.double()
    means = field.at(centres_mm(grid), grid.spacing_mm)
    assert means.shape == grid.shape
    assert (means - voxels).norm() < 0.03 * (voxels - voxels.mean()).norm()
    assert (field.at(centres_mm(grid)) - voxels).norm() > 2 * (means - voxels).norm()


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_every_operator_reads_small_voxels_at_points_as_on_a_grid(operator):
    model = awake(operator)
    field = model.field(latent_of(model))
    small = CELLS.crop((2, 1, 3), (1, 1, 1)).with_spacing(0.02).crop((40, 70, 90), (3, 2, 2))
    points = field.at(centres_mm(small), small.spacing_mm)
    on_grid = field.on(small).data.double()
    assert (points - on_grid).abs().max() < 0.02 < field.on(CELLS).data.std()


def test_points_of_any_shape_are_the_points_one_by_one():
    model, points = awake(), some_points(6)
    field = model.field(latent_of(model))
    block = field.at(points.reshape(2, 3, 3))
    assert block.shape == (2, 3)
    alone = torch.stack([field.at(point) for point in points])
    torch.testing.assert_close(block.flatten(), alone, rtol=0, atol=1e-9)
    assert field.at(points.tolist()[0]).shape == ()
    assert field.at(torch.zeros(0, 3)).shape == (0,)


@pytest.mark.parametrize("operator", ["integrated", "literal", "integrated-content"])
def test_gradients_flow_to_the_points_and_to_the_latent(operator):
    model = awake(operator)
    latent, points = latent_of(model, requires_grad=True), some_points(3)
    field, step = model.field(latent), 1e-5
    points.requires_grad_()
    values = field.at(points)
    by_point, by_latent = torch.autograd.grad(values.sum(), [points, latent.mean])
    with torch.no_grad():
        for axis in range(3):
            move = step * torch.eye(3, dtype=torch.float64)[axis]
            slope = (field.at(points + move) - field.at(points - move)) / (2 * step)
            torch.testing.assert_close(by_point[:, axis], slope, rtol=1e-4, atol=1e-5)
        change = torch.randn_like(latent.mean)
        ends = [replace(latent, mean=latent.mean + s * step * change) for s in (1, -1)]
        up, down = (model.field(end).at(points).sum() for end in ends)
    expected = (up - down) / (2 * step)
    torch.testing.assert_close((by_latent * change).sum(), expected, rtol=1e-4, atol=1e-5)


def test_without_gradients_to_ask_for_none_are_kept():
    model = awake()
    assert not model.field(latent_of(model)).at(some_points()).requires_grad


def test_beyond_the_box_there_is_background():
    model = awake()
    field = model.field(latent_of(model))
    faces = CELLS.index_to_ras([[-0.49, 1, 1], [-0.51, 1, 1], [90, 1, 1]])
    inside, *outside = field.at(faces).tolist()
    assert inside != UNITS.low and outside == [UNITS.low] * 2


@pytest.mark.parametrize("closed_form", [True, False])
def test_slabs_are_what_save_slabs_writes(tmp_path, closed_form):
    model = awake(closed_form=closed_form).float()
    latent = latent_of(model)
    latent = replace(latent, mean=latent.mean.float())
    field, grid = model.field(latent), CELLS.with_spacing(1.7)
    save_slabs(tmp_path / "a.nii", grid, None, partial(field.slabs, grid))
    save(field.on(grid), tmp_path / "b.nii")
    one, other = load(tmp_path / "a.nii"), load(tmp_path / "b.nii")
    rounding = 1e-6 * float(other.data.abs().max())  # slabs run along other axes
    torch.testing.assert_close(one.data, other.data, rtol=0, atol=rounding)
    torch.testing.assert_close(model.decode(latent, grid).data, field.on(grid).data)


@pytest.mark.parametrize("points", [[[0.0, 1.0]], [[float("nan"), 0, 0]], 3.0])
def test_what_are_no_points_is_refused(points):
    model = awake()
    with pytest.raises(InputError, match="points_mm must be finite"):
        model.field(latent_of(model)).at(points)


def test_a_size_without_extent_is_refused():
    model = awake()
    with pytest.raises(InputError, match="spacing_mm"):
        model.field(latent_of(model)).at(some_points(), spacing_mm=0.0)


def test_weights_keep_the_names_that_released_files_hold():
    with safe_open(release_path("tiny"), framework="pt") as file:
        released = set(file.keys())
    model = MedIL(preset("tiny").model)
    state = model.state_dict()
    assert set(state) == released
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    model.load_state_dict(state | {"from_latent.bias": torch.ones_like(state["from_latent.bias"])})
    assert (model.decoder.into.bias == 1).all()


def test_the_field_is_nan_where_the_nearest_voxel_had_no_value(tmp_path):
    model = awake()
    latent = latent_of(model)
    native = latent.native
    missing = torch.zeros(native.shape, dtype=torch.bool)
    missing[3:6, 2:4, 1:] = True
    holed = replace(latent, mean=latent.mean.float(), log_var=latent.log_var.float())
    holed = Latent.load(replace(holed, missing=missing).save(tmp_path / "a.safetensors"))
    assert torch.equal(holed.missing, missing)
    field, whole = model.field(holed), model.field(latent)
    turned = native.rotated((1, 0, 2), 30).shifted((3, 1, 0))
    for grid in (native, native.with_spacing(1.0), turned):
        index_vox = native.ras_to_index(centres_mm(grid).numpy())
        index = np.floor(index_vox + 0.5 + 1e-6).astype(int)
        inside = ((index >= 0) & (index < native.shape)).all(-1)
        i, j, k = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
        expected = missing.numpy()[i, j, k] & inside
        values = field.on(grid).data
        np.testing.assert_array_equal(values.isnan(), expected)
        kept = ~values.isnan()
        torch.testing.assert_close(values[kept], whole.on(grid).data[kept], atol=1e-4, rtol=0)
        points = centres_mm(grid)[::3, ::2, ::4]
        np.testing.assert_array_equal(field.at(points).isnan(), expected[::3, ::2, ::4])
