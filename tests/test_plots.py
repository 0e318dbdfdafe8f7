"""Pictures say where things are: positions in mm, one window, symmetric errors."""

import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.plots import (
    cell_faces_mm,
    compare,
    error_maps,
    radial_power,
    spectra,
    training_steps,
)
from medil.training.patches import Step
from medil.volume import Volume

pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture
def grid() -> Grid:
    return Grid.from_spacing((7, 8, 9), (1.0, 1.5, 3.0), origin_mm=(-3.0, -20.0, 40.0))


@pytest.fixture
def marked(grid: Grid) -> Volume:
    data = torch.zeros(grid.shape)
    data[5, 2, 6] = 1.0  # at R 2, A -17, S 58 mm
    return Volume(data, grid)


def panels_of(figure) -> list:
    return [ax for ax in figure.axes if ax.images and ax.get_xlabel()]


def three_planes(volume: Volume, point_mm=None):
    return compare([volume], [""], point_mm)


def brightest_mm(ax) -> tuple[float, float]:
    """Where a reader sees the brightest pixel of a panel, on its axes in mm."""
    image = ax.images[0]
    values = np.asarray(image.get_array())
    row, column = np.unravel_index(values.argmax(), values.shape)
    left, right, below, above = image.get_extent()
    return (
        left + (column + 0.5) * (right - left) / values.shape[1],
        below + (row + 0.5) * (above - below) / values.shape[0],
    )


def test_a_bright_voxel_is_drawn_at_its_place_in_mm(marked):
    sagittal, coronal, axial = panels_of(three_planes(marked, point_mm=(2, -17, 58)))
    assert brightest_mm(sagittal) == pytest.approx((-17, 58))
    assert brightest_mm(coronal) == pytest.approx((2, 58))
    assert brightest_mm(axial) == pytest.approx((2, -17))


def test_the_plane_shown_holds_the_point(marked):
    beside = panels_of(three_planes(marked, point_mm=(2, -17, 55)))
    assert beside[2].images[0].get_array().max() == 0
    within = panels_of(three_planes(marked, point_mm=(2.4, -17.7, 59.4)))
    assert all(ax.images[0].get_array().max() == 1 for ax in within)


def test_pixels_have_their_true_aspect_and_nearest_neighbour_display(marked, grid):
    for ax, (across, up) in zip(
        panels_of(three_planes(marked)), ((1, 2), (0, 2), (0, 1)), strict=True
    ):
        left, right, below, above = ax.images[0].get_extent()
        assert (right - left, above - below) == pytest.approx(
            (grid.extent_mm[across], grid.extent_mm[up])
        )
        assert ax.get_aspect() == 1
        assert ax.images[0].get_interpolation() == "nearest"


def test_right_is_on_the_right_and_is_marked(marked):
    axial = panels_of(three_planes(marked))[2]
    place = {text.get_text(): text.get_position()[0] for text in axial.texts}
    assert place["L"] < 0.5 < place["R"]
    left, right = axial.get_xlim()
    assert left < right


def test_compared_panels_share_window_and_field_of_view(marked, grid):
    finer = grid.with_spacing(1.0)
    other = Volume(torch.full(finer.shape, 5.0), finer)
    figure = compare([marked, other], ["a", "b"], planes=["axial"], window=(0, 2))
    first, second = panels_of(figure)
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0, 2)
    assert first.get_xlim() == second.get_xlim()
    assert [ax.get_title() for ax in (first, second)] == ["a", "b"]


def test_a_window_has_a_name(marked):
    figure = compare([marked], ["a"], planes=["axial"], window="mediastinum")
    assert panels_of(figure)[0].images[0].get_clim() == (-125, 225)
    with pytest.raises(InputError, match="no CT window 'liver'"):
        compare([marked], ["a"], window="liver")


def test_error_colours_are_symmetric_about_zero(marked):
    wrong = marked.with_data(marked.data + torch.linspace(-1, 3, marked.data.numel()).view(7, 8, 9))
    for ax in panels_of(error_maps(marked, [wrong], ["wrong"])):
        low, high = ax.images[0].get_clim()
        assert low == -high
        assert high > 0


def test_errors_on_another_grid_are_refused(marked, grid):
    elsewhere = Volume(marked.data, grid.shifted((1, 0, 0)))
    with pytest.raises(InputError, match="truth's grid"):
        error_maps(marked, [elsewhere], ["moved"])


def test_a_point_outside_is_refused_and_named(marked):
    with pytest.raises(InputError, match="99"):
        three_planes(marked, point_mm=(0, 99, 50))


def test_a_wave_peaks_at_its_frequency_in_cycles_per_mm():
    grid = Grid.from_spacing((40, 30, 32), (0.8, 1.0, 1.5))
    along_mm = centres_mm(grid)[..., 2]
    wave = Volume(torch.cos(2 * torch.pi * 0.125 * along_mm), grid)  # 6 periods in 48 mm
    frequency, power = radial_power(wave)
    assert frequency[power.argmax()] == pytest.approx(0.125, abs=0.5 / 0.8 / 64)


def test_the_spectrum_of_one_signal_does_not_depend_on_its_grid():
    coarse = Grid.from_spacing((24, 24, 24), 2.0)
    powers = []
    for grid in (coarse, coarse.with_spacing(1.0)):
        points = centres_mm(grid) - torch.from_numpy(grid.corners_mm.min(0))
        wave = torch.cos(2 * torch.pi * points[..., 0] / 24) * torch.sin(
            2 * torch.pi * points[..., 1] / 16
        )
        frequency, power = radial_power(Volume(wave, grid), n_bins=round(24 / grid.spacing_mm[0]))
        powers.append(power[frequency < 0.2])
    np.testing.assert_allclose(powers[0], powers[1], atol=1e-9 * powers[0].max())


def test_white_noise_has_the_density_of_its_variance():
    spacing_mm = (1.0, 2.0, 0.5)
    grid = Grid.from_spacing((32, 32, 32), spacing_mm)
    noise = torch.randn(grid.shape, generator=torch.Generator().manual_seed(1)) * 3
    frequency, power = radial_power(Volume(noise, grid))
    middle = power[(frequency > 0.2) & (frequency < 0.8)].mean()
    assert middle == pytest.approx(9 * np.prod(spacing_mm), rel=0.05)


def test_each_spectrum_is_named(marked):
    legend = spectra([marked, marked], ["one", "two"]).axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["one", "two"]


def test_cells_end_where_the_next_ones_begin(grid):
    faces = cell_faces_mm(grid, 1)
    np.testing.assert_allclose(np.diff(faces), 1.5)
    np.testing.assert_allclose(faces[[0, -1]], grid.bounds_mm[:, 1])


def test_a_training_step_lies_under_its_latent_cells_in_mm(marked, grid):
    latent_grid = Grid.from_spacing((3, 4, 8), 4.0, (-3.2, -19.0, 42.0))
    x = marked.data[None, None]
    [ax] = panels_of(training_steps({"a": Step(x, grid, latent_grid, x, grid)}))
    assert not ax.texts  # a step may be mirrored: no side is Left
    down = [line.get_xdata()[0] for line in ax.lines if line.get_xdata()[0] == line.get_xdata()[1]]
    np.testing.assert_allclose(down, [-5.2, -1.2, 2.8, 6.8])
    assert ax.get_xlim() == pytest.approx((-5.2, 6.8))
    left, _, below, _ = ax.images[0].get_extent()
    assert (left, below) == pytest.approx(tuple(grid.bounds_mm[0, :2]))
