"""Blocks of cortex whose truth is known at every voxel size, and noisy scans of them.

The content is drawn once on voxels of 0.25 mm; truths and scans are its exact means over larger
cells. Scans get noise, as a scanner's have; truths have none. Real brains, whose truth is the scan
with its own noise, serve to judge maps of uncertainty alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from eval import heads as synthetic
from eval.extrapolation.blocks import AT_1_MM, block_grid, brain_block
from eval.metrics.tissue import thresholds
from eval.rows import digest
from eval.subjects import held_out_brains, name_of, real
from medil.data.schema import Entry
from medil.grid import Grid
from medil.regrid import cell_average
from medil.synth.cortex import CSF, GREY, WHITE, cortex
from medil.synth.phantom import render
from medil.volume import Volume, robust_intensity

VERSION = 1  # part of every hash: raise it when other blocks are drawn
SEED = 6011
SIDE_MM, CONTENT_MM, MARGIN_MM = 48.0, 0.25, 4.0  # the margin, a latent cell, is not scored
NOISE = 0.02  # standard deviation, of the intensity scale
SCANS = {"1": (1.0, 1.0, 1.0), "1x1x3": (1.0, 1.0, 3.0)}  # voxels that are encoded, in mm
TRUTHS = {"2": 2.0, "1": 1.0, "0.8": 0.8, "0.5": 0.5}  # and rendered
CONDITIONS = ("1 -> 2", "1 -> 1", "1 -> 0.8", "1 -> 0.5", "1x1x3 -> 0.8")
ASKED = ("1 -> 0.8", "1 -> 0.5")  # where the bar is, and where tries are compared
OF_BRAINS = ("2 -> 1",)
FOLDS, THIN, HEAD, BRAIN = "folds_", "thin_sulci_", "made_", "real_"  # begin the names of blocks
PHANTOMS = {
    FOLDS: {"wavelength_mm": 12.0, "thickness_mm": 2.2},
    THIN: {"wavelength_mm": 8.0, "thickness_mm": 1.5},
}
RADIUS_MM, FOLD_MM = 40.0, 6.0


@dataclass(frozen=True)
class Block:
    """One piece of cortex."""

    name: str
    truths: dict[str, Volume]  # by voxel size, as in `TRUTHS`
    scans: dict[str, Volume]  # by voxel size, as in `SCANS`
    borders: tuple[float, float]  # between CSF and grey, and between grey and white matter

    def asked(self, condition: str) -> tuple[Volume, str]:
        """What a condition encodes, and the voxels that it renders (a key of `truths`)."""
        scanned, voxels = condition.split(" -> ")
        return self.scans[scanned], voxels

    def inside(self, voxels: str) -> np.ndarray:
        """[D, H, W] bool: what is scored, all but `MARGIN_MM` at the faces."""
        grid = self.truths[voxels].grid
        margin = int(np.ceil(MARGIN_MM / grid.spacing_mm[0] - 1e-6))
        inside = np.zeros(grid.shape, dtype=bool)
        inside[(slice(margin, -margin),) * 3] = True
        return inside


@dataclass(frozen=True)
class Source:
    """A block that can be drawn."""

    name: str
    data_sha256: str  # of the recipe
    draw: Callable[[], Block]

    @property
    def conditions(self) -> tuple[str, ...]:
        """What is encoded and rendered, as in `CONDITIONS`."""
        return OF_BRAINS if self.name.startswith(BRAIN) else CONDITIONS


def sources(heads: int, phantoms: int, brains: int = 0) -> list[Source]:
    """Synthetic heads of the test split, phantoms of each kind, and held-out real brains."""
    drawn = synthetic.heads("test", SEED, heads, synthetic.TRAINING)
    made = [
        _source(f"{HEAD}{h.index:02d}_from_{h.source()}", h.map_sha256, _head, h) for h in drawn
    ]
    made += [
        _source(f"{kind}{seed}", str(PHANTOMS[kind]), _phantom, kind, seed)
        for kind in PHANTOMS
        for seed in range(phantoms)
    ]
    entries = held_out_brains()[:brains]
    return made + [_source(f"{BRAIN}{name_of(e)}", e.sha256, _brain, e) for e in entries]


def _source(name: str, recipe: str, draw: Callable[..., Block], *arguments) -> Source:
    facts = [VERSION, name, recipe, SEED, SIDE_MM, CONTENT_MM, MARGIN_MM, NOISE, RADIUS_MM, FOLD_MM]
    return Source(name, digest(facts), partial(draw, name, *arguments))


def _brain(name: str, entry: Entry) -> Block:
    """A block of a real brain at 1 mm, mostly brain, and its means over 2 mm."""
    rng = np.random.default_rng([SEED, int(entry.sha256[:8], 16)])
    truth = brain_block(name, entry.sha256, real(entry).load().volume, rng).volumes[AT_1_MM]
    true = truth.data.double().numpy()
    scan = _mean(true, truth.grid, (2.0,) * 3)
    return Block(name, {"1": truth}, {"2": scan}, thresholds(true, true > 0.1))


def _head(name: str, head: synthetic.Head) -> Block:
    """A random block, mostly brain, of a synthetic head without its skull."""
    subject = head.draw()
    rng = np.random.default_rng([SEED, head.index, 9])
    overview = synthetic.overview(subject)
    rough = synthetic.stripped(subject, overview)
    middle_mm = synthetic.mostly_brain(rough.numpy() > 0, overview, SIDE_MM, rng, 60, 0.7)
    grid = block_grid(SIDE_MM, CONTENT_MM)
    content = synthetic.stripped(subject, grid.shifted((middle_mm - SIDE_MM / 2).tolist()))
    content = robust_intensity(rough).forward(content)
    return of_content(name, content.double().numpy(), rng)


def _phantom(name: str, kind: str, seed: int) -> Block:
    """A part of a folded surface that is a sphere in disguise: its white matter has no handle."""
    rng = np.random.default_rng([SEED, seed, 10])
    shape = cortex(seed, 0, RADIUS_MM, FOLD_MM, edge_mm=CONTENT_MM, **PHANTOMS[kind])
    outwards = rng.normal(size=3)
    middle_mm = outwards / np.linalg.norm(outwards) * (RADIUS_MM - 2)
    grid = block_grid(SIDE_MM, CONTENT_MM)
    content = render(shape, grid.shifted((middle_mm - SIDE_MM / 2).tolist()), 1)
    return of_content(name, content.double().numpy(), rng, ((CSF + GREY) / 2, (GREY + WHITE) / 2))


def of_content(
    name: str, content: np.ndarray, rng: np.random.Generator,
    borders: tuple[float, float] | None = None,
) -> Block:  # fmt: skip
    """The block of a content, [D, H, W] on a cube of `CONTENT_MM` voxels, 0 ... 1.

    Borders between tissues are the truth's at its finest voxels when None.
    """
    grid = block_grid(content.shape[0] * CONTENT_MM, CONTENT_MM)
    truths = {name: _mean(content, grid, (mm,) * 3) for name, mm in TRUTHS.items()}
    scans = {name: _noisy(_mean(content, grid, mm), rng) for name, mm in SCANS.items()}
    finest = truths["0.5"].data.double().numpy()
    return Block(name, truths, scans, borders or thresholds(finest, finest > 0.1))


def _mean(content: np.ndarray, grid: Grid, spacing_mm: tuple[float, float, float]) -> Volume:
    target = grid.with_spacing(spacing_mm)
    return Volume(torch.from_numpy(cell_average(content, grid, target)).float(), target)


def _noisy(scan: Volume, rng: np.random.Generator) -> Volume:
    noise = rng.normal(0, NOISE, scan.grid.shape)
    return scan.with_data(scan.data + torch.from_numpy(noise).float())
