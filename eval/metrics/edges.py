"""How wide an edge of the truth has become: the 10 to 90 % rise, in mm.

Edges are found in the truth, and the estimate is read along the truth's gradient there, so
that every estimate answers for the same edges.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from eval.metrics.checks import bounding_box, checked, depth_mm
from medil.box import Triple

STRONGEST = 0.05  # share of voxels, by the truth's gradient, among which edges are sought
INSIDE_MM = 3.0  # edges keep this far from the rim of the mask, which is often cut by hand
REACH_MM = 6.0  # how far a profile goes to either side
STEP_MM = 0.2
RELAPSE = 0.2  # a rise ends where it has lost this share of its height
MOST_EDGES = 3000
FEWEST_EDGES = 20
ERF_10_TO_90 = 2.5631031310892007  # width of a step blurred by a Gaussian, in its sigmas


def edge_width_mm(
    truth: np.ndarray, estimate: np.ndarray, mask: np.ndarray, spacing_mm: Triple
) -> float:
    """Median distance over which strong edges of the truth rise from 10 to 90 %.

    Up to 3000 of the steepest places of the truth, at least 3 mm inside the mask, each a
    maximum along its own gradient (Gaussian derivatives of 1 mm, or one voxel). There the
    estimate is read along that gradient by cubic splines. An edge rises from its foot to
    its top: outwards from the middle, each the last extremum before the profile turns back
    by 20 % of the rise so far, leaves the mask, or ends at 6 mm. An edge that does not
    rise in the estimate counts as 12 mm wide. A plane edge blurred by a Gaussian of sigma
    is 2.563 sigma wide. Detail in other places than the truth's edges does not count. Noise
    makes feet and tops of its own and so *narrows* edges: read it beside a measure of noise.
    The truth has a width too (compare it with itself), which no honest estimate undercuts.

    In mm, from 0 to 12; lower is sharper. NaN when the truth has fewer than 20 edges there.
    Source: the edge response of optics (ISO 12233), our choice of edges.
    """
    truth, estimate, mask = checked(truth, estimate, mask)
    box = bounding_box(mask, margin=2)
    truth, estimate, mask = truth[box], estimate[box], mask[box]
    centres_vox, directions = _edges(truth, mask, np.asarray(spacing_mm, dtype=float))
    if len(centres_vox) < FEWEST_EDGES:
        return float("nan")
    steps_mm = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    points = centres_vox[:, None] + steps_mm[:, None] * (directions / spacing_mm)[:, None]
    points = np.moveaxis(points, -1, 0)  # [3, edges, steps]
    seen = ndimage.map_coordinates(mask.astype(np.uint8), points, order=0, mode="constant") > 0
    profiles = ndimage.map_coordinates(estimate, points, order=3, mode="nearest")
    middle = len(steps_mm) // 2
    up = _side(profiles[:, middle:], seen[:, middle:])
    down = _side(-profiles[:, middle::-1], seen[:, middle::-1])
    return float(np.median(_rise_mm(up, down)))


def _edges(
    truth: np.ndarray, mask: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """[n, 3] voxel index of edges and [n, 3] unit vectors uphill, along the axes, in mm."""
    deep = depth_mm(mask, spacing_mm) >= INSIDE_MM
    if not deep.any():
        return np.empty((0, 3)), np.empty((0, 3))
    slopes = _slopes(truth, spacing_mm)  # [3, D, H, W]
    steepness = np.sqrt((slopes**2).sum(axis=0))
    least = np.quantile(steepness[deep], 1 - STRONGEST)
    places_vox = np.argwhere(deep & (steepness >= least) & (steepness > 1e-9 * np.abs(truth).max()))
    uphill = slopes[:, *places_vox.T].T
    uphill /= np.linalg.norm(uphill, axis=1, keepdims=True)
    # One step of a voxel along the gradient must lead down on both sides.
    step_vox = uphill / spacing_mm / np.abs(uphill / spacing_mm).max(axis=1, keepdims=True)
    here = steepness[tuple(places_vox.T)]
    for sign in (-1, 1):
        there = ndimage.map_coordinates(steepness, (places_vox + sign * step_vox).T, order=1)
        here = np.where(there <= here, here, np.nan)
    kept = np.flatnonzero(np.isfinite(here))
    kept = kept[:: max(1, -(-len(kept) // MOST_EDGES))]
    return places_vox[kept].astype(float), uphill[kept]


def _slopes(truth: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """[3, D, H, W] Gaussian derivatives per mm along each axis."""
    sigma_vox = np.maximum(1.0 / spacing_mm, 1.0)
    slopes = []
    for axis in range(3):
        order = [int(axis == a) for a in range(3)]
        slope = ndimage.gaussian_filter(truth, sigma_vox, order=order, mode="nearest")
        slopes.append(slope / spacing_mm[axis])
    return np.array(slopes)


def _side(values: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """One side of each profile, from its middle out, held at its extremum from there on.

    `values` [edges, steps] rise from the middle out; `seen` says what lies in the mask. The
    result never falls: the running maximum until the rise has ended.
    """
    highest = np.maximum.accumulate(values, axis=1)
    relapse = highest - values > RELAPSE * (highest - values[:, :1])
    relapse &= highest > values[:, :1]
    ended = np.logical_or.accumulate(relapse | ~seen, axis=1)
    ended[:, 0] = False
    last = np.argmax(ended, axis=1) - 1
    last = np.where(ended.any(axis=1), last, values.shape[1] - 1)
    top = highest[np.arange(len(values)), last]
    return np.minimum(highest, top[:, None])


def _rise_mm(up: np.ndarray, down: np.ndarray) -> np.ndarray:
    """[edges] distance between 10 and 90 % of the rise, linear between steps.

    `up` and `down` are [edges, steps] from the middle towards the top and, negated, the foot.
    """
    foot, top = -down[:, -1], up[:, -1]
    rise = top - foot
    profile = np.concatenate((-down[:, :0:-1], up), axis=1)  # foot to top, never falling
    flat = rise <= 1e-12 * np.maximum(np.abs(top), np.abs(foot))
    share = (profile - foot[:, None]) / np.where(flat, 1.0, rise)[:, None]
    crossings = []
    for level in (0.1, 0.9):
        after = np.maximum(np.argmax(share >= level, axis=1), 1)
        rows = np.arange(len(share))
        before = share[rows, after - 1]
        part = (level - before) / np.maximum(share[rows, after] - before, 1e-12)
        crossings.append((after - 1 + part) * STEP_MM)
    return np.where(flat, 2 * REACH_MM, crossings[1] - crossings[0])
