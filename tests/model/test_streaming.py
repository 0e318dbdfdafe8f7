"""Volumes in slabs: the same numbers as the whole, in a budget, and no file left half-written."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medil.config import ModelConfig, preset
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.io.intensity import Intensity
from medil.layers.operators import ENCODER_OPERATORS, OPERATORS
from medil.model.autoencoder import MedIL
from medil.model.streaming_conv import Course, course_of
from medil.model.tiles import cuts
from medil.system.device import find_device
from medil.volume import Volume, check_room, load, save, save_slabs
from tests.images import refused, write_nifti

UNIT = Intensity(0.0, 1.0)
GRIDS = {
    "uneven": Grid.from_spacing((37, 30, 11), (0.9, 1.2, 3.0), (-5, 7, 2)),
    "fine": Grid.from_spacing((29, 33, 31), 0.7),
    "coarse": Grid.from_spacing((7, 4, 9), (5.0, 9.0, 3.0)),
    "oblique": Grid.from_spacing((30, 31, 29), 1.1).rotated((1, 2, 3), 20),
}


def noisy(grid: Grid) -> Volume:
    """Every voxel its own number: seams and shifts have nowhere to hide."""
    return Volume(torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)), grid)


def awake(config: ModelConfig) -> MedIL:
    """A model in which every layer speaks."""
    torch.manual_seed(0)
    model = MedIL(config).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture(scope="module")
def model():
    return awake(preset("test").model)


def thin(monkeypatch, planes, rows):
    """Let the planner choose these."""
    monkeypatch.setattr("medil.model.field.planes_and_rows", lambda *_: (planes, rows))


# Decoding


@pytest.mark.parametrize(("planes", "rows"), [(1, 1), (2, 7), (3, 5), (8, 100)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_decoded_slabs_are_the_whole(model, monkeypatch, planes, rows, axis):
    latent = model.encode(noisy(GRIDS["uneven"]), UNIT)
    target = latent.native.with_spacing((1.3, 0.8, 1.0))
    with torch.inference_mode():
        z = latent.mean[None]
        whole = model.decode_tensor(z, latent.grid, target)[0, 0]
    thin(monkeypatch, planes, rows)
    for descending in (False, True):
        slabs = list(model.field(latent).slabs(target, axis, descending))
        starts = [start for start, _ in slabs]
        assert starts == sorted(starts, reverse=descending)
        ordered = [slab for _, slab in sorted(slabs, key=lambda pair: pair[0])]
        assert max(slab.shape[axis] for slab in ordered) <= rows
        torch.testing.assert_close(torch.cat(ordered, axis), whole, atol=1e-5, rtol=1e-6)


def test_slabs_that_run_against_the_latent_and_across_it_are_the_whole(model, monkeypatch):
    latent = model.encode(noisy(GRIDS["fine"]), UNIT)
    around = Grid.from_spacing((13, 12, 14), 1.6, latent.native.centre_mm - 10)
    for angle in (30, 170):
        target = around.rotated((0.2, 0.1, 1), angle)
        with torch.inference_mode():
            whole = model.decode_tensor(latent.mean[None], latent.grid, target)[0, 0]
        thin(monkeypatch, 2, 4)
        slabs = sorted(model.field(latent).slabs(target), key=lambda pair: pair[0])
        data = torch.cat([slab for _, slab in slabs])
        inside = torch.from_numpy(
            (np.abs(latent.grid.index_to_norm(index_of(latent.grid, target))) < 1).all(-1)
        )
        assert inside.float().mean() > 0.5
        torch.testing.assert_close(data[inside], whole[inside], atol=1e-5, rtol=0)
        assert (data[~inside] == UNIT.low).all()


def index_of(box: Grid, grid: Grid) -> np.ndarray:
    return box.ras_to_index(centres_mm(grid).numpy())


def test_the_course_follows_the_axis_that_the_slabs_cut():
    latent_grid = Grid.from_spacing((5, 5, 5), 4.0)
    assert course_of(latent_grid, latent_grid, 1) == Course(1)
    assert course_of(latent_grid, latent_grid, 2, descending=True) == Course(2, True)
    turned = latent_grid.rotated((0, 0, 1), 95)  # its first axis runs along the second one
    assert course_of(latent_grid, turned, 0) == Course(1)
    assert course_of(latent_grid, turned, 1) == Course(0, True)


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_decoder_operator_renders_in_slabs(operator, monkeypatch):
    model = awake(replace(preset("test").model, operator=operator))
    latent = model.encode(noisy(Grid.from_spacing((17, 15, 18), 1.3)), UNIT)
    with torch.inference_mode():
        whole = model.decode_tensor(latent.mean[None], latent.grid, latent.native)[0, 0]
    thin(monkeypatch, 2, 5)
    torch.testing.assert_close(model.decode(latent).data, whole, atol=1e-4, rtol=1e-5)


def test_a_part_of_the_target_is_that_part_of_the_whole(model):
    latent = model.encode(noisy(Grid.from_spacing((90, 20, 20), 2.0)), UNIT)
    part = latent.native.crop((80, 3, 5), (4, 9, 7))
    whole = model.decode(latent).data[80:84, 3:12, 5:12]
    torch.testing.assert_close(model.decode(latent, part).data, whole, atol=1e-5, rtol=0)


def test_a_processor_with_bfloat16_renders_in_it_and_keeps_its_latents(model, monkeypatch):
    volume = noisy(GRIDS["uneven"])
    latent = model.encode(volume, UNIT)
    exact, fast = (model.decode(latent, precision=p).data for p in ("float32", "bfloat16"))
    monkeypatch.setattr("medil.system.device.has_bfloat16", lambda: True)
    assert torch.equal(model.decode(latent).data, fast) and not torch.equal(fast, exact)
    assert torch.equal(model.encode(volume, UNIT).mean, latent.mean)


def test_networks_in_bfloat16_render_nearly_the_same(model):
    latent = model.encode(noisy(GRIDS["uneven"]), UNIT)
    exact, fast = (model.decode(latent, precision=p).data for p in ("float32", "bfloat16"))
    assert torch.equal(exact, model.decode(latent).data) or model.device.type == "cuda"
    splines = model.decode(latent, linear_only=True).data
    assert 0 < (fast - exact).norm() < 0.02 * (exact - splines).norm()
    with pytest.raises(InputError, match="one of auto, float32, bfloat16, not 'half'"):
        model.field(latent, precision="half")


# Encoding


@pytest.mark.parametrize("tile", [1, 3, 5])
@pytest.mark.parametrize("name", GRIDS)
def test_an_image_encoded_in_tiles_has_the_latent_of_the_whole(model, name, tile):
    volume = noisy(GRIDS[name])
    latent_grid = model.latent_grid(volume.grid)
    with torch.inference_mode():
        mean, log_var = model.encode_tensor(volume.data[None, None], volume.grid, latent_grid)
    latent = model.encode(volume, UNIT, tile=tile)
    assert latent.grid == latent_grid
    assert (latent.mean - mean[0]).abs().max() < 1e-5 * mean.std()
    torch.testing.assert_close(latent.log_var, log_var[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("closed_form", [True, False])
@pytest.mark.parametrize("operator", ENCODER_OPERATORS)
def test_every_encoder_operator_works_in_tiles(operator, closed_form):
    config = replace(
        preset("test").model, encoder_operator=operator, closed_form=closed_form, depth_encoder=2
    )
    model = awake(config)
    volume = noisy(Grid.from_spacing((23, 9, 12), (1.1, 1.6, 1.3)))
    with torch.inference_mode():
        cells = model.latent_grid(volume.grid)
        mean, _ = model.encode_tensor(volume.data[None, None], volume.grid, cells)
    for tile in (1, 3, 50):
        latent = model.encode(volume, UNIT, tile=tile)
        assert (latent.mean - mean[0]).abs().max() < 1e-5 * mean.std()


def test_the_projection_in_slabs_is_the_projection(model):
    for grid in GRIDS.values():
        x, cells = noisy(grid).data[None, None], model.latent_grid(grid)
        whole = model.splines.project(x, grid, cells)
        pieces = ((i, x[:, :, i : i + n]) for i, n in cuts(grid.shape[0], 3))
        slabs = model.splines.project_slabs(pieces, grid, cells)
        torch.testing.assert_close(slabs, whole, atol=1e-5, rtol=1e-5)


# Files


def slabs_of(data: torch.Tensor):
    def make(axis, descending, thick=3):
        starts = range(0, data.shape[axis], thick)
        for start in reversed(starts) if descending else starts:
            yield start, data.narrow(axis, start, min(thick, data.shape[axis] - start))

    return make


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", ["RAS", "LAS", "PIR", "LIA", "oblique", "tail", "nifti2", "big"])
def test_slabs_make_the_file_that_save_makes(tmp_path, kind, suffix):
    grid = Grid.from_spacing((7, 8, 10), (1.0, 1.5, 3.0), (-11.0, 7.5, 20.0))
    placed = grid.rotated((1, 2, -0.5), 17) if kind == "oblique" else grid
    if kind in ("LAS", "PIR", "LIA"):
        placed = placed.reoriented(kind)[0]
    stored = np.zeros((*placed.shape, 1) if kind == "tail" else placed.shape, np.int16)
    write_nifti(tmp_path / "source.nii", stored, placed.affine_vox2ras)
    if kind in ("nifti2", "big"):
        image = nib.Nifti2Image(stored, placed.affine_vox2ras)
        if kind == "big":
            header = nib.Nifti1Header(endianness=">")
            header.set_xyzt_units("micron")
            image = nib.Nifti1Image(stored, placed.affine_vox2ras, header)
        nib.save(image, tmp_path / "source.nii")
    source = load(tmp_path / "source.nii")
    for number, target in enumerate([source.grid, source.grid.with_spacing(1.7)]):
        data = noisy(target).data
        one, other = (tmp_path / f"{name}{number}{suffix}" for name in ("one", "other"))
        save(Volume(data, target), one, like=source.source)
        save_slabs(other, target, source.source, slabs_of(data))
        content = gzip.decompress if suffix == ".nii.gz" else bytes
        assert content(one.read_bytes()) == content(other.read_bytes())
        back = load(other)
        assert back.grid.is_close(target, 1e-3)
        torch.testing.assert_close(back.data, data)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd"])
def test_slabs_without_a_source_lie_where_they_belong(tmp_path, suffix):
    grid = Grid.from_spacing((7, 8, 10), (1.0, 1.5, 3.0), (-11.0, 7.5, 20.0))
    data = noisy(grid).data
    save_slabs(tmp_path / f"a{suffix}", grid, None, slabs_of(data))
    save(Volume(data, grid), tmp_path / f"b{suffix}")
    one, other = load(tmp_path / f"a{suffix}"), load(tmp_path / f"b{suffix}")
    assert one.grid == other.grid and one.grid.is_close(grid, 1e-4)
    torch.testing.assert_close(one.data, data)


def test_a_format_that_is_written_whole_is_refused_where_it_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("medil.system.memory.free_memory_bytes", lambda: 1000)
    with pytest.raises(InputError, match=r"which \.mgz needs as a whole,.* GB of memory"):
        save_slabs(tmp_path / "a.mgz", GRIDS["fine"], None, slabs_of(noisy(GRIDS["fine"]).data))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_before_the_work(tmp_path):
    check_room(tmp_path / "a.nii", GRIDS["fine"])
    with pytest.raises(InputError, match=r"1,000,000,000,000,000 voxels .* GB of disk"):
        check_room(tmp_path / "a.nii", Grid.from_spacing((10**5, 10**5, 10**5), 1.0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_stopping_between_slabs_leaves_nothing(tmp_path, error):
    def make(axis, descending):
        yield next(slabs_of(noisy(GRIDS["fine"]).data)(axis, descending))
        assert len(list(tmp_path.iterdir())) == 1  # the temporary file
        raise error

    with pytest.raises(error):
        save_slabs(tmp_path / "a.nii.gz", GRIDS["fine"], None, make)
    assert list(tmp_path.iterdir()) == []


STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may ignore Ctrl-C
from types import SimpleNamespace
import torch
from medil.cli import main
from medil.model.autoencoder import MedIL

def slow(*_, **__):
    yield 0, torch.zeros(24, 22, 2)
    print("rendering", flush=True)
    time.sleep(60)

MedIL.field = lambda model, latent, **_: SimpleNamespace(slabs=slow)
main(["decode", sys.argv[1], "-o", sys.argv[2]])
"""


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_decode_that_is_stopped_half_way_leaves_no_file(model, tmp_path, stop, code):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    latent = model.encode(noisy(Grid.from_spacing((24, 22, 9), (1.2, 1.5, 4.0))), UNIT)
    latent.save(tmp_path / "z.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    arguments = [sys.executable, "-c", STOPPABLE, tmp_path / "z.safetensors", out / "a.nii.gz"]
    root = Path(__file__).parents[2]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(arguments, cwd=root, text=True, **pipes) as process:
        assert process.stdout.readline() == "rendering\n"
        assert len(os.listdir(out)) == 1
        process.send_signal(stop)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "Traceback" not in err and os.listdir(out) == []


# The command line


def test_a_round_trip_in_a_budget_is_the_round_trip(run_medil, scan, tmp_path, spline_model):
    latent = tmp_path / "z.safetensors"
    budget = ["--memory", "3GB", "--device", "cpu"]
    for arguments in (
        ("encode", scan, "-o", latent, *budget),
        ("decode", latent, "-o", tmp_path / "a.nii.gz", "--spacing", 2, 1.5, 1, *budget),
        ("reconstruct", scan, "-o", tmp_path / "b.nii.gz", "--spacing", 2, 1.5, 1, *budget),
    ):
        assert run_medil(*arguments)[0] == 0
    a, b = (load(tmp_path / f"{name}.nii.gz") for name in "ab")
    assert a.grid.is_close(b.grid, 1e-4) and a.source.orientation == "LPS"
    torch.testing.assert_close(a.data, b.data, atol=1e-3, rtol=0)
    whole = spline_model.decode(spline_model.encode(load(scan)), a.grid)
    torch.testing.assert_close(a.data, whole.data, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--memory", "lots"], "not a memory size"),
        (["--memory", "1MB"], "needs at least"),
        (["--device", "tpu"], "tpu"),
    ],
)
def test_bad_budgets_and_devices_are_refused(run_medil, scan, tmp_path, options, words):
    refused(run_medil("reconstruct", scan, "-o", tmp_path / "out.nii", *options), words)
    assert list(tmp_path.glob("*out*")) == []


def test_devices_are_found_or_refused():
    assert find_device("cpu").type == "cpu"
    assert find_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(InputError, match="one of auto"):
        find_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no cuda device"):
            find_device("cuda")


PEAK = """
import resource, sys, torch
from medil.config import preset
from medil.model.autoencoder import MedIL
from medil.grid import Grid
from medil.io.intensity import Intensity
from medil.latent import Latent

model = MedIL(preset("test").model).eval()
cells = Grid.from_spacing((16, 16, 16), 4.0)
z = torch.randn(model.config.latent_channels, 16, 16, 16)
latent = Latent(z, z, cells, cells, Intensity(0.0, 1.0))
grid = cells.with_spacing(float(sys.argv[1]))
for _, slab in model.field(latent).slabs(grid):
    assert slab.isfinite().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_output():
    root = Path(__file__).parents[2]
    peaks = []
    for spacing_mm in (0.4, 0.2):
        arguments = [sys.executable, "-c", PEAK, str(spacing_mm)]
        result = subprocess.run(arguments, cwd=root, capture_output=True, text=True, check=True)
        peaks.append(int(result.stdout))
    assert peaks[1] < 1.3 * peaks[0]  # the output itself grows from 16 MB to 131 MB


def test_a_line_of_values_is_refused_as_no_volume(spline_model):
    line = Grid.from_spacing((163_842, 1, 1), 1.0)
    volume = Volume(torch.linspace(0, 1, 163_842).reshape(line.shape), line)
    with pytest.raises(InputError, match=r"163,842 voxels along an axis .* no volume"):
        spline_model.encode(volume)
    far = Grid.from_spacing((40, 2, 2), 1000.0)
    with pytest.raises(InputError, match="40,000 mm long, which is no volume"):
        spline_model.encode(Volume(torch.rand(far.shape), far))


def test_a_long_volume_is_encoded_and_rendered_in_more_planes_at_a_time(spline_model, monkeypatch):
    grid = Grid.from_spacing((150, 3, 4), 2.0)
    volume = Volume(torch.rand(grid.shape, generator=torch.Generator().manual_seed(0)), grid)
    unit = Intensity(0, 1)
    usual = spline_model.decode(spline_model.encode(volume, unit)).data
    monkeypatch.setattr("medil.model.budget.STEPS", 8)
    monkeypatch.setattr("medil.model.budget.MOST_ROWS", 40)
    long = spline_model.decode(spline_model.encode(volume, unit)).data
    torch.testing.assert_close(long, usual, atol=1e-5, rtol=0)
