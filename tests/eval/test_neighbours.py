"""The linear decoder that sees its neighbours: linear, harmless on constants, above splines."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from eval import heads
from eval.coders import neighbours
from eval.coders.base import NeighboursCoder, kind_of
from eval.metrics import brain_mask, peak_intensity, psnr
from medil.data.manifest import entries, fetch
from medil.grid import Grid
from medil.volume import Volume, load


def textured(seed: int, spacing_mm: float | tuple = 1.0) -> Volume:
    """Smooth noise of one spectrum, brain everywhere: a linear code can learn it."""
    grid = Grid.from_spacing((78, 84, 76), spacing_mm, origin_mm=(-9, 5, 30))
    noise = np.random.default_rng(seed).normal(size=grid.shape)
    data = 3 + ndimage.gaussian_filter(noise, 0.9 / np.array(grid.spacing_mm)) * 4
    return Volume(torch.from_numpy(data.clip(0.01)).float(), grid)


def rendered(volume: Volume, weight: torch.Tensor) -> np.ndarray:
    cells = neighbours.cells_of(volume.grid)
    kept = neighbours.coefficients(volume.data.numpy(), volume.grid, cells)
    return neighbours.render(kept, cells, weight, volume.grid)


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    return neighbours.fit(map(textured, (1, 2)))


@pytest.mark.parametrize("spacing_mm", [1.0, (0.9, 0.9, 1.1)])
def test_a_fit_improves_on_splines_of_volumes_that_it_never_saw(weight, spacing_mm):
    volume = textured(3, spacing_mm)
    data = volume.data.double().numpy()
    alone, both = (((rendered(volume, w) - data) ** 2).mean() for w in (0 * weight, weight))
    assert both < 0.99 * alone


def test_a_fit_is_the_same_twice(weight):
    assert torch.equal(weight, neighbours.fit(map(textured, (1, 2))))


@pytest.mark.parametrize("spacing_mm", [1.0, (0.7, 0.9, 1.6), (1.0, 1.0, 5.0)])
def test_a_constant_volume_stays_so_and_the_code_is_linear(spacing_mm):
    grid, coder = Grid.from_spacing((21, 18, 11), spacing_mm), NeighboursCoder()
    rng = np.random.default_rng(5)
    one, two = (torch.from_numpy(rng.normal(size=grid.shape)) for _ in range(2))

    def through(data: torch.Tensor) -> np.ndarray:
        return coder.decode(coder.encode(Volume(data, grid)), grid)

    constant = through(torch.full(grid.shape, 3.25, dtype=torch.float64))
    np.testing.assert_allclose(constant, 3.25, rtol=1e-3)
    np.testing.assert_allclose(through(2 * one - two), 2 * through(one) - through(two), atol=1e-4)


def test_the_cells_begin_at_the_first_corner_and_whole_cells_do_not_matter(weight):
    volume = textured(6)
    cells, corner = neighbours.cells_of(volume.grid), [-0.5, -0.5, -0.5]
    np.testing.assert_allclose(cells.index_to_ras(corner), volume.grid.index_to_ras(corner))
    assert cells.shape == (20, 21, 19) and cells.shares_extent(volume.grid)
    volume = Volume(volume.data[:76], volume.grid.crop((0, 0, 0), (76, 84, 76)))
    data = volume.data[8:, 4:, 8:]
    part = Volume(data, volume.grid.crop((8, 4, 8), data.shape))
    inside = (slice(28, 40),) * 3  # away from faces, where neighbours are missing
    whole = rendered(volume, weight)[8:, 4:, 8:][inside]
    np.testing.assert_allclose(rendered(part, weight)[inside], whole, atol=0.01)


def test_the_committed_numbers_say_what_they_were_fitted_on():
    tensors, facts = heads.read(neighbours.FILE)
    assert tensors["weight"].shape == (64, 8, 3, 3, 3)
    assert facts["data"] == [entry.sha256 for entry in entries(neighbours.DATA, "train")]
    assert facts["commit"] and not facts["commit"].endswith("+")
    assert tensors["weight"].sum((1, 2, 3, 4)).abs().max() < 1e-5  # adds nothing to a constant


def test_it_is_a_linear_code_and_its_rows_name_its_numbers():
    coder = NeighboursCoder()
    assert kind_of(coder.name) == coder.kind == "linear codec" and len(coder.weights_sha256) == 64


def test_it_beats_the_splines_on_a_brain_of_the_test_split(mirror):
    whole = load(fetch(entries(neighbours.DATA, "test")[1]))
    start, shape = np.array((100, 100, 60)), (96, 90, 70)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    volume = Volume(whole.data[box].clone(), whole.grid.crop(start, shape))
    data, mask = volume.data.double().numpy(), brain_mask(volume.data.numpy())
    weight, peak = neighbours.fitted(), peak_intensity(data, mask)
    alone, both = (psnr(data, rendered(volume, w), mask, peak) for w in (0 * weight, weight))
    assert both > alone + 0.03
