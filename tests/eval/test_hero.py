"""The picture of the first page: same place in mm, each grid's own voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from eval.pictures import hero as figures
from eval.subjects import Scan, Subject
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.volume import Volume

pytest.importorskip("matplotlib")


@pytest.fixture
def subject() -> Subject:
    """A ramp in mm within a ball, thick slices, slightly oblique, off-centre."""
    grid = Grid.from_spacing((36, 34, 12), (1, 1, 3), origin_mm=(10, -4, 7)).rotated((1, 0, 1), 4)
    offset_mm = centres_mm(grid).numpy() - grid.centre_mm
    data = 100 + offset_mm @ (1.0, 2.0, 3.0)
    mask = np.linalg.norm(offset_mm, axis=-1) < 14
    scan = Scan(Volume(torch.from_numpy(data).float(), grid), mask)
    return Subject("ramp", "d" * 64, (), lambda: scan)


def test_a_slab_is_the_plane_of_voxels_that_holds_the_point(subject):
    grid = subject.load().volume.grid
    point_mm = grid.index_to_ras((3, 20.4, 5))
    plane = figures.slab(grid, point_mm)
    assert plane.shape == (36, 1, 12)
    np.testing.assert_allclose(plane.index_to_ras((0, 0, 0)), grid.index_to_ras((0, 20, 0)))


def test_panels_show_one_place_on_four_grids(spline_model, subject):
    scan = subject.load()
    point_mm = figures.point_of_interest(scan.volume, scan.mask)
    shown = figures.panels_of(spline_model, scan.volume, point_mm)
    titles, volumes = zip(*shown, strict=True)
    assert titles == ("scan, 1 x 1 x 3 mm", "MedIL, 1 x 1 x 3 mm", "MedIL, 0.5 mm", "MedIL, 2 mm")
    for volume in volumes:
        at_mm = figures.in_plane(volume.grid, point_mm)
        assert np.linalg.norm(at_mm - point_mm) <= volume.grid.spacing_mm[1] / 2 + 1e-9
        here = np.rint(volume.grid.ras_to_index(at_mm)).astype(int)
        value = volume.data[tuple(here)].item()
        # A ramp stays that ramp, whatever the voxels: up to the projection's small ridge.
        true = 100 + (volume.grid.index_to_ras(here) - scan.volume.grid.centre_mm) @ (1, 2, 3)
        assert value == pytest.approx(true, abs=0.5)


def test_hero_draws_every_panel_in_one_field_of_view(spline_model, subject, tmp_path):
    figure = figures.hero(spline_model, subject)
    upper, lower = np.array(figure.axes).reshape(2, 4)
    for row in (upper, lower):
        assert len({(*ax.get_xlim(), *ax.get_ylim()) for ax in row}) == 1
        assert len({image.get_clim() for ax in row for image in ax.images}) == 1
    left, right = lower[0].get_xlim()
    assert right - left == pytest.approx(2 * figures.ZOOM_MM)


def test_an_unknown_subject_is_one_sentence_and_exit_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "subjects", lambda profile: [])
    with pytest.raises(InputError, match="no available subject is called 'nobody'"):
        figures.choose("nobody")
    out = tmp_path / "hero.png"
    assert figures.main(["--subject", "nobody", "--out", str(out)]) == 2
    assert "nobody" in capsys.readouterr().err and not out.exists()
