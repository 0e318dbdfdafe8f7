import numpy as np
import pytest
import torch

from medil.errors import InputError
from medil.grid import Grid
from medil.latent import Latent
from medil.volume import Intensity, Volume, load, save


@pytest.fixture
def latent(rng):
    grid = Grid.from_spacing((3, 4, 5), 4.0, (1, 2, 3)).rotated((1, 2, 0), 15)
    values = torch.from_numpy(rng.normal(size=(2, 8, 3, 4, 5))).float()
    native = grid.with_spacing((1.0, 1.5, 3.0))
    return Latent(values[0], values[1] - 20, grid, native, Intensity(-1000, 400), None, "abc")


def test_a_saved_latent_comes_back_whole(latent, tmp_path):
    back = Latent.load(latent.save(tmp_path / "a.safetensors"))
    assert torch.equal(back.mean, latent.mean) and torch.equal(back.log_var, latent.log_var)
    assert back.grid == latent.grid and back.native == latent.native
    assert back.intensity == latent.intensity and back.weights_id == "abc"


def test_the_file_of_origin_is_remembered(latent, scan, tmp_path):
    source = load(scan).source
    known = Latent(**{**latent.__dict__, "source": source})
    back = Latent.load(known.save(tmp_path / "a.safetensors")).source
    assert back.orientation == source.orientation == "LPS"
    assert back.codes == source.codes
    volume = Volume(torch.zeros(source.grid.reoriented("RAS")[0].shape), load(scan).grid, back)
    again = load(save(volume, tmp_path / "again.nii.gz"))
    np.testing.assert_allclose(
        again.source.grid.affine_vox2ras, source.grid.affine_vox2ras, atol=1e-5
    )


def test_an_existing_file_needs_force(latent, tmp_path):
    path = latent.save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="exists"):
        latent.save(path)
    latent.save(path, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04pickle"])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError):
        Latent.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a file"):
        Latent.load(tmp_path / "none.safetensors")


def test_samples_spread_as_the_log_variance_says(latent):
    wide = Latent(**{**latent.__dict__, "log_var": torch.full_like(latent.mean, np.log(4.0))})
    draws = torch.stack(
        [wide.sample(torch.Generator().manual_seed(s)).mean - wide.mean for s in range(40)]
    )
    assert draws.std().item() == pytest.approx(2.0, rel=0.05)
    assert abs(draws.mean().item()) < 0.05


def test_a_crop_covers_its_box_and_keeps_numbers_at_their_place(latent):
    wanted = latent.grid.index_to_ras([1, 1, 2])
    near = latent.crop_mm(wanted - 1.0, wanted + 1.0)
    assert min(near.grid.shape) >= 1 and near.grid.n_voxels < latent.grid.n_voxels
    cell = np.rint(near.grid.ras_to_index(wanted)).astype(int)
    assert torch.equal(near.mean[:, *cell], latent.mean[:, 1, 1, 2])
    assert torch.equal(near.log_var[:, *cell], latent.log_var[:, 1, 1, 2])
    assert near.native == latent.native and near.weights_id == latent.weights_id


def test_a_crop_along_the_cells_takes_those_that_the_box_touches():
    grid, numbers = Grid.from_spacing((6, 5, 4), 4.0), torch.arange(120.0).reshape(1, 6, 5, 4)
    whole = Latent(numbers, numbers, grid, grid, Intensity(0.0, 1.0))
    faces = whole.crop_mm((-2.0, 2.0, 2.0), (10.0, 6.0, 30.0))  # cell n fills 4 n - 2 ... 4 n + 2
    assert torch.equal(faces.mean, numbers[:, 0:3, 1:2, 1:4])
    np.testing.assert_allclose(faces.grid.index_to_ras([0, 0, 0]), (0.0, 4.0, 4.0))


@pytest.mark.parametrize(
    ("low", "high"), [((90, 90, 90), (99, 99, 99)), ((1, 1, 1), (0, 3, 3))], ids=["far", "empty"]
)
def test_a_crop_without_a_cell_is_refused(latent, low, high):
    with pytest.raises(InputError, match="no latent cell lies between"):
        latent.crop_mm(low, high)
