"""Where the voxels lie against the features decides what reading them shows."""

import numpy as np
import pytest
import torch

from eval.pages.phase import PITCH_MM, RULES, feature_grid, read_at_centres, scores, voxel_grid
from medil.grid import centres_mm
from medil.synth.phantoms import ball, ramp

MIDDLE_MM = (3.0, -2.0, 5.0)
PHASES = [(0.0, 0.0, 0.0), (0.3, 0.6, 0.9)]


@pytest.mark.parametrize("phase", PHASES)
def test_nodes_lie_at_the_phase_before_the_first_voxel_and_surround_the_box(phase):
    voxels = voxel_grid(MIDDLE_MM, 12.0, 1.5)
    nodes = feature_grid(voxels, phase)
    offset = (voxels.affine_vox2ras[:3, 3] - nodes.affine_vox2ras[:3, 3]) / PITCH_MM
    np.testing.assert_allclose(offset % 1, phase, atol=1e-12)
    assert (nodes.bounds_mm[0] < voxels.bounds_mm[0]).all()
    assert (nodes.bounds_mm[1] > voxels.bounds_mm[1]).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_ramp_is_read_exactly_at_any_phase(rule):
    # Away from the grid's ends, where the spline's own end condition counts.
    voxels = voxel_grid(MIDDLE_MM, 12.0, 1.5)
    nodes = feature_grid(voxels, PHASES[1])
    wide = nodes.shifted((-40.0,) * 3).crop((0, 0, 0), tuple(n + 40 for n in nodes.shape))
    phantom = ramp()
    read = read_at_centres(phantom.formula(centres_mm(wide)), wide, voxels, rule)
    truth = phantom.formula(centres_mm(voxels))
    torch.testing.assert_close(read, truth, atol=1e-9, rtol=0)


def test_voxels_on_the_nodes_are_copied_and_others_are_not():
    voxels = voxel_grid((25.0, 0.0, 0.0), 12.0, PITCH_MM)  # across the surface
    found = scores(ball(edge_mm=1.0), voxels, PHASES)
    for rule in RULES:
        on_nodes, off_nodes = found[rule]
        assert on_nodes > 200 > 60 > off_nodes > 10
