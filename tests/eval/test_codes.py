"""Pictures of what is lost: the shares are those of known signals, the panels share a window."""

import numpy as np
import pytest
import torch

from eval.pictures import codes as pictures
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.volume import Volume

pytest.importorskip("matplotlib")


@pytest.fixture
def cube():
    """32 mm of voxels of 1 mm."""
    return Grid.from_spacing((32, 32, 32), 1.0, origin_mm=(5.0, -3.0, 2.0))


@pytest.fixture
def noise(cube, rng):
    return Volume(torch.from_numpy(rng.standard_normal(cube.shape)), cube)


def test_share_lost_of_a_fainter_copy_is_its_square_at_every_frequency(noise):
    faint = noise.with_data(0.7 * noise.data)
    frequency, share = pictures.share_lost(noise, faint)
    np.testing.assert_allclose(share, 0.3**2, rtol=1e-6)
    assert frequency.min() > 0 and frequency.max() < 0.5 * np.sqrt(3)


def test_share_lost_is_one_only_where_a_wave_was_left_out(cube):
    offset_mm = centres_mm(cube)
    slow, fast = (torch.sin(2 * np.pi * f * offset_mm[..., 0]) for f in (0.08, 0.35))
    frequency, share = pictures.share_lost(Volume(slow + fast, cube), Volume(slow, cube))
    assert share[np.argmin(abs(frequency - 0.35))] == pytest.approx(1, abs=1e-3)
    assert share[np.argmin(abs(frequency - 0.08))] < 1e-3


def test_tapered_volume_ends_in_nothing_and_keeps_its_middle(cube):
    position_mm = centres_mm(cube)[..., 1]
    faded = pictures.tapered(Volume(position_mm, cube)).data.numpy()
    assert abs(faded[0]).max() < 0.02 * abs(position_mm.numpy() - position_mm.numpy().mean()).max()
    assert faded.sum() == pytest.approx(0, abs=1e-6)


def test_errors_share_one_symmetric_window_and_the_volumes_another(noise):
    rebuilt = {
        name: noise.with_data(share * noise.data) for name, share in (("a", 0.9), ("b", 0.5))
    }
    middle_mm = noise.grid.centre_mm
    figure = pictures.rebuilt_and_errors(noise, rebuilt, middle_mm, (-2.0, 2.0), "coronal")
    limits = [ax.images[0].get_clim() for ax in figure.axes if ax.images]
    assert limits[:3] == [(-2.0, 2.0)] * 3
    assert limits[3] == limits[4] and limits[3][0] == -limits[3][1]


def test_errors_on_another_grid_are_refused(noise):
    other = Volume(noise.data, noise.grid.shifted((0.5, 0, 0)))
    with pytest.raises(InputError, match="truth's grid"):
        pictures.rebuilt_and_errors(noise, {"a": other}, noise.grid.centre_mm, (0, 1), "axial")


def test_planes_of_many_grids_show_one_field_of_view(noise, cube):
    coarse = Volume(torch.zeros(16, 16, 11), cube.with_spacing((2, 2, 3)))
    figure = pictures.planes_on_grids(
        {"fine": noise, "coarse": coarse}, cube.centre_mm, (0, 1), "sagittal", half_width_mm=9
    )
    views = {(*ax.get_xlim(), *ax.get_ylim()) for ax in figure.axes if ax.images}
    assert len(views) == 1
    left, right, *_ = views.pop()
    assert (left + right) / 2 == pytest.approx(cube.centre_mm[1]) and right - left == 18


def test_the_curve_of_a_search_begins_at_zero_error(noise):
    figure = pictures.search_curve([3.0, 2.0, 1.5], {"rival": 2.5}, "RMS error (% of the peak)")
    low, high = figure.axes[0].get_ylim()
    assert low == 0 and high > 3
    assert figure.axes[0].lines[1].get_ydata()[0] == 2.5
