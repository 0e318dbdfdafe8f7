"""Rebuild a block by patches and at once, and measure the difference.

Patches lie on the whole's own latent cells and share its intensity scale, except where
*own scale* says otherwise. *Reach* takes one face instead of many: the first part of a bar
is rebuilt with ever more of what follows, until nothing changes any more. The rest of the bar
is either cut off or painted black. Painted black, the bar keeps its length, and what changes
is what the networks and the projection see; cut off, the projection's penalty changes too,
because its weight is set by a mean over the whole axis.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import pandas as pd
import torch

from eval import metrics, rows
from eval.coders.base import Coder, ReleaseCoder, loaded, release_coders
from eval.patch_vs_whole import patches
from eval.robustness.heads import block_of, heads
from eval.runner import Task
from eval.subjects import Box, Scan, Subject, box_between, cut_box
from medil.errors import InputError
from medil.grid import Grid
from medil.model.base import LatentAutoencoder
from medil.volume import robust_intensity

NAME = "patch_vs_whole"
BLOCK_MM = 96.0
CASES = (  # side and halo in mm, each patch on its own scale or not
    *((32, halo, False) for halo in (0, 4, 8, 16)),
    *((48, halo, False) for halo in (0, 4, 8, 16, 32)),
    *((48, halo, True) for halo in (0, 16)),
)
GPU_CASES = ((32, 32, False),)  # in addition
BAR_MM, THICK_MM, FIRST_MM = 160, 48, 64  # bar's length and width, and the length rebuilt
REACH_HALOS_MM = (0, 8, 16, 32, 48, 64, 80, 96)  # the last one is the whole bar
OF_PATCHES = {"difference": "%", "seam": "1", "drift": "%", "psnr_gain": "dB"}  # metric to unit
OF_REACH = {"largest_cut": "%", "largest_black": "%"}
DEFINITION = {
    "version": 1,
    "block_mm": BLOCK_MM,
    "bar_mm": (BAR_MM, THICK_MM, FIRST_MM),
    "drift_fwhm_mm": patches.DRIFT_FWHM_MM,
    "peak_percentile": metrics.PEAK_PERCENTILE,
}
Case = tuple[int, int, bool]
Scores = dict[str, tuple[dict[str, float], float, Grid]]


def condition(case: Case) -> str:
    """The condition in the rows, such as ``32 mm patches, halo 8 mm``."""
    side_mm, halo_mm, own_scale = case
    return f"{side_mm} mm patches, halo {halo_mm} mm{', own scale' if own_scale else ''}"


def reach_condition(halo_mm: int) -> str:
    """The condition in the rows, such as ``reach, halo 48 mm``."""
    return f"reach, halo {halo_mm} mm"


def factors(conditions: pd.Series) -> pd.DataFrame:
    """Side and halo in mm and whose scale; the side is 0 for the reach along a bar."""
    side = conditions.str.extract(r"^(\d+) mm patches")[0].fillna("0").astype(int)
    halo = conditions.str.extract(r"halo (\d+) mm")[0].astype(int)
    own = conditions.str.endswith("own scale")
    return pd.DataFrame({"side_mm": side, "halo_mm": halo, "own_scale": own})


def cases(profile: str) -> tuple[Case, ...]:
    """The cases of a profile."""
    return CASES + (() if profile == "quick" else GPU_CASES)


def tasks(options: argparse.Namespace, provenance: rows.Provenance) -> list[Task]:
    """One task a head."""
    arms, wanted_cases = release_coders(options.release), cases(options.profile)
    return [
        Task(
            subject.name,
            wanted(subject, arms, wanted_cases),
            partial(measure, subject, arms, wanted_cases, provenance),
        )
        for subject in heads(options.profile)
    ]


def measurement(subject: Subject, arm: Coder, question: str) -> rows.Measurement:
    """One arm on one head under one condition."""
    return arm.measurement(NAME, subject.name, subject.data_sha256, question, DEFINITION)


def wanted(
    subject: Subject, arms: list[Coder], wanted_cases: tuple[Case, ...]
) -> frozenset[rows.Identity]:
    """The identities of a head's rows."""
    by_patches = [measurement(subject, a, condition(case)) for a in arms for case in wanted_cases]
    reach = [measurement(subject, a, reach_condition(h)) for a in arms for h in REACH_HALOS_MM]
    return rows.identities([(m, OF_PATCHES) for m in by_patches] + [(m, OF_REACH) for m in reach])


def measure(
    subject: Subject,
    arms: list[Coder],
    wanted_cases: tuple[Case, ...],
    provenance: rows.Provenance,
) -> list[rows.Row]:
    """Rows of one head, arm by arm."""
    scan = subject.load()
    block = cut_box(scan, block_of(scan, (BLOCK_MM,) * 3))
    bar = cut_box(scan, bar_of(scan))
    made = []
    for arm in arms:
        model, linear_only = model_of(arm)
        scores = score_block(model, block, wanted_cases, linear_only)
        scores |= score_reach(model, bar, linear_only)
        for question, (values, time_s, grid) in scores.items():
            n_numbers = model.config.latent_channels * model.latent_grid(grid).n_voxels
            sampling = rows.Sampling.of(grid, grid, n_numbers)
            about = measurement(subject, arm, question)
            made += about.rows(values, OF_PATCHES | OF_REACH, sampling, time_s, provenance)
    return made


def model_of(arm: Coder) -> tuple[LatentAutoencoder, bool]:
    """The model behind a release's coder, and whether its network is left out.

    Raises:
        InputError: A coder without latent cells that patches could share.
    """
    if not isinstance(arm, ReleaseCoder):
        raise InputError(f"patches need the latent cells of a release; {arm.name} has none.")
    return loaded(arm.release), arm.splines_alone


def bar_of(scan: Scan) -> Box:
    """A bar along A through the middle of a head, or as much of it as there is."""
    shape = np.asarray(scan.volume.grid.shape)
    size = np.rint(np.array([THICK_MM, BAR_MM, THICK_MM]) / scan.volume.grid.spacing_mm)
    size = np.minimum(size.astype(int), shape)
    middle = np.argwhere(scan.mask).mean(0)
    start = np.clip(np.rint(middle - (size - 1) / 2).astype(int), 0, shape - size)
    return box_between(start, start + size)


def scaled(scan: Scan) -> torch.Tensor:
    """[D, H, W] on the 0 ... 1 scale of the whole."""
    return robust_intensity(scan.volume.data).forward(scan.volume.data)


def score_block(
    model: LatentAutoencoder, block: Scan, wanted_cases: tuple[Case, ...], linear_only: bool = False
) -> Scores:
    """Score a block rendered by patches against the block rendered at once.

    Maps a condition to its metrics, seconds and grid. The block is a whole number of latent cells.
    """
    x, grid, mask = scaled(block), block.volume.grid, block.mask
    truth = x.double().numpy()
    peak = metrics.peak_intensity(truth, mask)
    whole = patches.rebuilt_whole(model, x, grid, linear_only).double().numpy()
    whole_db = metrics.psnr(truth, whole, mask, peak)
    scores = {}
    for case in wanted_cases:
        side_mm, halo_mm, own_scale = case
        started = time.perf_counter()
        apart = patches.rebuilt_by_patches(model, x, grid, side_mm, halo_mm, linear_only, own_scale)
        time_s = time.perf_counter() - started
        data = apart.double().numpy()
        i, j, k = (round(side_mm / s) for s in grid.spacing_mm)
        values = {
            "difference": patches.difference_percent(whole, data, mask, peak),
            "seam": patches.seam_ratio(whole, data, mask, (i, j, k)),
            "drift": patches.drift_percent(whole, data, mask, grid.spacing_mm, peak),
            "psnr_gain": metrics.psnr(truth, data, mask, peak) - whole_db,
        }
        scores[condition(case)] = values, time_s, grid
    return scores


def score_reach(model: LatentAutoencoder, bar: Scan, linear_only: bool = False) -> Scores:
    """Rebuild the first part of a bar with more and more of what follows along its second axis.

    Maps a condition to its metrics, seconds and grid.
    """
    x, grid = scaled(bar), bar.volume.grid
    step_mm = grid.spacing_mm[1]
    first = round(FIRST_MM / step_mm)
    mask = bar.mask[:, :first]
    peak = metrics.peak_intensity(x.double().numpy(), bar.mask)
    whole = patches.rebuilt_whole(model, x, grid, linear_only)[:, :first]

    def largest(part: torch.Tensor, part_grid: Grid) -> float:
        apart = patches.rebuilt_whole(model, part, part_grid, linear_only)[:, :first] - whole
        return float(100 * np.abs(apart.double().numpy()[mask]).max() / peak)

    scores = {}
    for halo_mm in REACH_HALOS_MM:
        end = min(first + round(halo_mm / step_mm), grid.shape[1])
        started = time.perf_counter()
        shorter = grid.crop((0, 0, 0), (grid.shape[0], end, grid.shape[2]))
        black = x.clone()
        black[:, end:] = 0
        values = {
            "largest_cut": largest(x[:, :end], shorter),
            "largest_black": largest(black, grid),
        }
        scores[reach_condition(halo_mm)] = values, time.perf_counter() - started, grid
    return scores
