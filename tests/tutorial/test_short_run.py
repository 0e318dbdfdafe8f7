"""A short run is a real one: halves make the whole, settings arrive, Ctrl-C stops and resumes."""

import pytest
import torch

from medil.tutorial.short_run import halves, run_in, short_config
from medil.volume import Volume
from tests.run_training import block_scans


def test_halves_meet_at_one_plane_and_hold_every_voxel(oblique_grid):
    volume = Volume(torch.rand(oblique_grid.shape), oblique_grid)
    back, front = halves(volume)
    assert torch.equal(torch.cat([back.data, front.data], dim=1), volume.data)
    next_mm = back.grid.index_to_ras((0, back.grid.shape[1], 0))
    assert front.grid.index_to_ras((0, 0, 0)) == pytest.approx(next_mm)


def test_settings_of_a_short_run_override_its_own():
    config = short_config(7, closed_form=True, global_mix=0.0)
    assert (config.train.steps, config.train.global_mix) == (7, 0.0)
    assert config.model.closed_form
    assert not short_config(7).model.closed_form


def test_an_interrupted_short_run_resumes_to_the_same_bits(tmp_path, capsys):
    config, scans = short_config(4, bf16=False), block_scans()
    once = run_in(tmp_path / "once", config, scans)
    run_in(tmp_path / "stopped", config, scans, interrupt_at=2)
    assert "resume" in capsys.readouterr().out
    twice = run_in(tmp_path / "stopped", config, scans, resume=True)
    pairs = zip(once.parameters(), twice.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
