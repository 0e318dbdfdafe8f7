"""Held-out heads at 1 mm and the block of each that is coded; `patch_vs_whole` uses them too.

The whole head is damaged, as a scanner would do it, and a block is then cut out. So whatever
wraps round or leaks into the block comes from real tissue.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from eval import heads as synthetic
from eval.metrics import brain_mask
from eval.rows import digest
from eval.subjects import (
    COHORT_SEED,
    MADE_VERSION,
    MARGIN_MM,
    Box,
    Scan,
    Subject,
    at_1_mm,
    box_between,
    held_out_brains,
    real,
    template_subject,
    trimmed,
)
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume

SPACING_MM = 1.0
N_SYNTHETIC = {"quick": 1, "gpu": 4, "paper": 12}


def heads(profile: str) -> list[Subject]:
    """Real brains (MNI152 where there are none) and synthetic heads, all of the test split.

    Args:
        profile: ``quick`` (the 1 mm brain of the tables and one synthetic head), ``gpu`` (all
            brains and four) or ``paper`` (all brains and twelve).

    Returns:
        Each loads as a scan at 1 mm, trimmed to its brain; synthetic ones are noise-free.

    Raises:
        InputError: No such profile.
    """
    if profile not in N_SYNTHETIC:
        raise InputError(f"a profile is quick, gpu or paper, not {profile!r}.")
    drawn = synthetic.heads("test", COHORT_SEED, N_SYNTHETIC[profile])
    brains = [*map(real, held_out_brains())] or [template_subject()]
    shown = brains[:1] if profile == "quick" else brains
    return [*map(_trimmed, shown), *map(_synthetic, drawn)]


def _trimmed(whole: Subject) -> Subject:
    """A brain at 1 mm, cropped to its mask."""
    return replace(whole, conditions=(), load=lambda: trimmed(at_1_mm(whole.load())))


def _synthetic(head: synthetic.Head) -> Subject:
    recipe = digest([MADE_VERSION, head.map_sha256, COHORT_SEED, head.index, SPACING_MM, MARGIN_MM])

    def make() -> Scan:
        subject = head.draw()
        low_mm, high_mm = subject.head_mm[0] - MARGIN_MM, subject.head_mm[1] + MARGIN_MM
        shape = np.ceil((high_mm - low_mm) / SPACING_MM).astype(int).tolist()
        grid = Grid.from_spacing(shape, SPACING_MM, (low_mm + SPACING_MM / 2).tolist())
        data = synthetic.stripped(subject, grid)
        return trimmed(Scan(Volume(data, grid), brain_mask(data.numpy())))

    return Subject(f"made_{head.index:02d}_from_{head.source()}", recipe, (), make)


def block_of(scan: Scan, sides_mm: tuple[float, float, float]) -> Box:
    """The box of a block of `sides_mm` (D, H, W) in the left upper part of the brain.

    Its left face and its top are those of the trimmed scan; the others cut through tissue.

    Raises:
        InputError: The scan is smaller than the block.
    """
    shape = np.asarray(scan.volume.grid.shape)
    size = np.rint(np.asarray(sides_mm) / scan.volume.grid.spacing_mm).astype(int)
    if (size > shape).any():
        raise InputError(f"a block of {size} voxels does not fit into a head of {shape}.")
    middle = np.argwhere(scan.mask)[:, 1].mean() - (size[1] - 1) / 2
    start = np.array([0, np.clip(round(middle), 0, shape[1] - size[1]), shape[2] - size[2]])
    return box_between(start, start + size)
