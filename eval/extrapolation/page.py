"""The small part of this experiment that its page computes while it is built."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pandas as pd

from eval.coders.base import Coder, Renderer
from eval.extrapolation import EXPERIMENT
from eval.extrapolation.blocks import CONDITIONS, Block, Source
from eval.extrapolation.coders import for_block
from eval.extrapolation.report import heading, name_of
from eval.extrapolation.score import BANDS, scores
from eval.extrapolation.train import FOLDER, Run, train_all
from eval.metrics.spectra import soft_mask
from eval.rows import RESULTS

SHOWN = ("psnr", "detail_kept_fine", "detail_invented_fine", "fsc_05_mm", "handles_per_cm3")


def trained_now(arms: Sequence[str], steps: int, folder: Path = FOLDER) -> list[Run]:
    """Short runs on one head at 1 mm, trained where their weights are not in the folder yet.

    Without progress bars, which a page would keep.
    """
    runs = [Run(arm, 0, steps, 1) for arm in arms]
    with redirect_stderr(io.StringIO()):
        train_all(runs, folder)
    return [run for run in runs if run.path(folder).exists()]


def render(block: Block, coders: Sequence[Coder], condition: str) -> dict[str, np.ndarray]:
    """Arm -> [D, H, W], what each coder renders of a block under a condition."""
    renderer, (volume, target) = Renderer(), (block.volumes[v] for v in CONDITIONS[condition])
    return {c.name: renderer.render(for_block(c, block), volume, target.grid)[0] for c in coders}


def band_shares(block: Block, voxels: str) -> dict[str, float]:
    """The share of a block's variance, under its soft mask, that each band of `BANDS` holds."""
    truth, spacing_mm = block.truth(voxels), block.volumes[voxels].grid.spacing_mm
    weights = soft_mask(block.mask(voxels), spacing_mm)
    power = np.abs(np.fft.fftn(weights * (truth - np.average(truth, weights=weights)))) ** 2
    axes_per_mm = [np.fft.fftfreq(n, mm) for n, mm in zip(truth.shape, spacing_mm, strict=True)]
    squares = np.meshgrid(*(f**2 for f in axes_per_mm), indexing="ij", sparse=True)
    radius_per_mm = np.sqrt(sum(squares))
    return {
        band: float(power[(radius_per_mm >= low) & (radius_per_mm < high)].sum() / power.sum())
        for band, (low, high) in BANDS.items()
    }


def scored(block: Block, condition: str, rendered: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One line an arm, one column a metric of `SHOWN`."""
    lines = {arm: scores(block, condition, data) for arm, data in rendered.items()}
    return pd.DataFrame(lines).T[list(SHOWN)]


def beside_recorded(
    live: pd.DataFrame, source: Source, condition: str, coders: Sequence[Coder],
    folder: Path = RESULTS,
) -> pd.DataFrame:  # fmt: skip
    """Live scores beside those recorded of the same block, weights and metric, by arm.

    "now / recorded" for each metric, and the live score alone where there is no row.
    """
    frame, known = EXPERIMENT.recorded(folder), {}
    if frame is not None:
        same = frame[
            frame[["data_sha256", "condition"]].eq([source.data_sha256, condition]).all(axis=1)
        ]
        known = same.set_index(["arm", "weights_sha256", "metric"])["value"].to_dict()
    lines = []
    for coder in coders:
        line = {"Arm": name_of(coder.name)}
        for metric in SHOWN:
            was = known.get((coder.name, coder.weights_sha256, metric))
            text = "" if was is None else f" / {was:.3f}"
            line[heading(metric)] = f"{live.loc[coder.name, metric]:.3f}{text}"
        lines.append(line)
    return pd.DataFrame(lines)
