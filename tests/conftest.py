"""Small, uneven things for every test: odd shapes, uneven spacings, an oblique affine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from medil.data.manifest import PublishedFile
from medil.errors import InputError
from medil.grid import Grid
from tests.images import ramp, write_nifti

SHAPE = (7, 8, 9)
SPACING_MM = (1.0, 1.5, 3.0)


@pytest.fixture(autouse=True)
def no_downloaded_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests take LPIPS's trunk from the mirror or do without; they never download it."""

    def refuse(entry: PublishedFile, target: Path) -> Path:
        raise InputError(
            f"{entry.path} could not be downloaded; set MEDIL_DATA_MIRROR to a folder that has it."
        )

    monkeypatch.setattr("medil.data.perceptual.download", refuse)


@pytest.fixture(autouse=True)
def exact_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests compare numbers, so "auto" is float32 on every processor."""
    monkeypatch.setattr("medil.system.device.has_bfloat16", lambda: False)


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator."""
    return np.random.default_rng(20250409)


@pytest.fixture
def grid() -> Grid:
    """7 x 8 x 9 voxels of 1 x 1.5 x 3 mm, RAS+, off-centre."""
    return Grid.from_spacing(SHAPE, SPACING_MM, origin_mm=(-11.0, 7.5, 20.0))


@pytest.fixture
def oblique_grid(grid: Grid) -> Grid:
    """The same grid turned by 17 degrees about a slanted axis."""
    return grid.rotated((1.0, 2.0, -0.5), 17.0)


@pytest.fixture(params=["straight", "oblique", "LPS", "LIA"])
def any_grid(request, grid: Grid, oblique_grid: Grid) -> Grid:
    """Straight, oblique and flipped grids."""
    if request.param == "straight":
        return grid
    return oblique_grid if request.param == "oblique" else oblique_grid.reoriented(request.param)[0]


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The local mirror of published data, where there is one."""
    folder = os.environ.get("MEDIL_DATA_MIRROR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MEDIL_DATA_MIRROR names no folder with the published files")
    return Path(folder)


@pytest.fixture
def run_medil(capsys: pytest.CaptureFixture):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from medil.cli import run

    def run_it(*arguments: object) -> tuple[int, str, str]:
        code = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


@pytest.fixture(scope="session")
def spline_model():
    """A small autoencoder whose networks are silenced: the closed-form projection alone.

    What it renders is known without training: a ramp in mm stays that ramp.
    """
    import torch

    from medil.config import preset
    from medil.model.autoencoder import MedIL

    model = MedIL(preset("test").model).eval()
    with torch.no_grad():
        for layer in (model.encoder.out, model.decoder.render):
            for weights in layer.parameters():
                weights.zero_()
    return model


@pytest.fixture
def scan(tmp_path, monkeypatch, spline_model) -> Path:
    """A ramp stored as an oblique LPS uint16 scan, and a release that reads it."""
    monkeypatch.setattr("medil.model.weights.load_release", lambda name: spline_model)
    grid = Grid.from_spacing((24, 22, 9), (1.2, 1.5, 4.0), (-10.0, 5.0, 7.0))
    placed = grid.rotated((1, 2, -0.5), 17.0).reoriented("LPS")[0]
    stored = ramp(placed).round().numpy().astype(np.uint16)
    return write_nifti(tmp_path / "scan.nii.gz", stored, placed.affine_vox2ras)
