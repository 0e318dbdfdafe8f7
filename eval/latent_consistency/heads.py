"""Heads for the consistency experiment: one content, and every scan of it an average.

A content is defined everywhere in a block of a head, so that scans on shifted, turned, finer
and coarser grids differ by their grids alone. They are noise-free and share one intensity
scale: noise and scaling are other questions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import fft

from eval import heads as synthetic
from eval.latent_consistency.conditions import BANDS_PER_MM, SAME
from eval.rows import digest
from eval.subjects import COHORT_SEED, MADE_VERSION, Scan, at_1_mm, held_out_brains, real
from medil.data.schema import Entry
from medil.errors import InputError
from medil.grid import Grid
from medil.model.codecs import frequencies_per_mm
from medil.regrid import cell_average, cubic_resample
from medil.synth.subject import Subject
from medil.volume import robust_intensity

BLOCK_VOXELS = 72  # of 1 mm, along a side of the block that is encoded
FINE_MM = 0.5  # voxels of a synthetic head's content
TILT_AXIS, TILT_DEG = (1.0, 2.0, -0.5), 12.0
SPARE_MM = 3  # of content around the block and the turned block


@dataclass(frozen=True)
class Content:
    """A head in and around the block, from which every scan of it is averaged."""

    data: np.ndarray  # [D, H, W] float64 on the 0 ... 1 scale
    grid: Grid  # where it lies; it reaches beyond the block on all sides
    block: Grid  # as a 1 mm scan sees it, parallel to `grid`


@dataclass(frozen=True)
class Head:
    """A held-out head, loaded when needed."""

    name: str  # public
    data_sha256: str  # of its bytes, or of its recipe
    content_mm: float  # voxel size of its content: which scans it allows
    load: Callable[[], Content]


def heads(profile: str) -> list[Head]:
    """Real brains where they are available, and synthetic heads from test-split label maps.

    ``quick`` takes the 1 mm brain of the tables alone, the others all of the test split. Where no
    label maps are available, the synthetic heads come from the MNI152 tissue maps. At least four,
    since distances are fractions of those between heads.

    Raises:
        InputError: No such profile.
    """
    counts = {"quick": 4, "gpu": 12, "paper": 40}
    if profile not in counts:
        raise InputError(f"a profile is quick, gpu or paper, not {profile!r}.")
    brains = held_out_brains()[: 1 if profile == "quick" else None]
    made = synthetic.heads("test", COHORT_SEED, counts[profile])
    return [*map(_real, brains), *map(_made, made)]


def _real(entry: Entry) -> Head:
    brain = real(entry)
    return Head(brain.name, entry.sha256, 1.0, lambda: real_content(at_1_mm(brain.load())))


def _made(head: synthetic.Head) -> Head:
    recipe = digest([MADE_VERSION, head.map_sha256, COHORT_SEED, head.index, FINE_MM])
    name = f"made_{head.index:02d}_from_{head.source()}"
    return Head(name, recipe, FINE_MM, lambda: made_content(head.draw()))


def made_content(subject: Subject) -> Content:
    """A synthetic head without noise and skull on 0.5 mm voxels, block around its middle."""
    first_mm = subject.head_mm.mean(0) - (BLOCK_VOXELS - 1) / 2
    block = Grid.from_spacing([BLOCK_VOXELS] * 3, 1.0, first_mm)
    grid = around(block, FINE_MM)
    whole, fine = (
        synthetic.stripped(subject, g, quadrature_mm=max(g.spacing_mm))
        for g in (synthetic.overview(subject), grid)
    )
    return Content(robust_intensity(whole).forward(fine).double().numpy(), grid, block)


def real_content(scan: Scan) -> Content:
    """A 1 mm scan as content: constant over each voxel, air beyond its box.

    The block lies around the middle of the mask.
    """
    volume = scan.volume
    middle = np.rint(np.argwhere(scan.mask).mean(0)).astype(int)
    block = volume.grid.crop(middle - BLOCK_VOXELS // 2, [BLOCK_VOXELS] * 3)
    grid = around(block, 1.0)
    start = np.rint(volume.grid.ras_to_index(grid.index_to_ras((0, 0, 0)))).astype(int)
    low, high = np.maximum(start, 0), np.minimum(start + grid.shape, volume.grid.shape)
    data = np.zeros(grid.shape)
    here = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    data[here] = robust_intensity(volume.data).forward(volume.data)[there].double().numpy()
    return Content(data, grid, block)


def around(block: Grid, spacing_mm: float) -> Grid:
    """Voxels over the block, the turned block, and a little more; parallel to the block."""
    reach = block.ras_to_index(turned(block).corners_mm)  # in voxels of 1 mm
    more = int(np.ceil(-0.5 - reach.min())) + SPARE_MM
    wide = block.crop([-more] * 3, [n + 2 * more for n in block.shape])
    return wide.resized([round(e / spacing_mm) for e in wide.extent_mm])


def turned(block: Grid, angle_deg: float = TILT_DEG) -> Grid:
    """The block turned about a slanted axis through its middle."""
    return block.rotated(TILT_AXIS, angle_deg)


def band_limited(content: Content, band: str = SAME) -> Content:
    """The content without short waves; `band` is a key of `BANDS_PER_MM`.

    Isotropic, with a Gaussian edge: all is kept up to the band's first frequency, 1 % at its
    second. A product with the cosine transform of the content, mirrored at its faces.
    """
    passed, stopped = BANDS_PER_MM[band]
    fi, fj, fk = frequencies_per_mm(content.grid)
    beyond = np.clip(np.sqrt(fi**2 + fj**2 + fk**2) - passed, 0, None)
    gain = 0.01 ** ((beyond / (stopped - passed)) ** 2)
    data = fft.idctn(gain * fft.dctn(content.data, norm="ortho"), norm="ortho")
    return Content(data, content.grid, content.block)


def scan_smooth(content: Content, grid: Grid) -> np.ndarray:
    """[D, H, W] float64 scan of a band-limited content on any grid, oblique ones too.

    Means over voxels at 2 Gauss points per axis of cubic splines; the error is below 2e-3 of a
    wave that is at least 4 voxels long along each axis.
    """
    point = 0.5 / np.sqrt(3)  # in voxels, from the centre
    total = np.zeros(grid.shape)
    for offset in product((-point, point), repeat=3):
        step_mm = grid.affine_vox2ras[:3, :3] @ offset
        total += cubic_resample(content.data, content.grid, grid.shifted(step_mm))
    return total / 8


def scan_whole(content: Content, grid: Grid) -> np.ndarray:
    """Scan the whole content on a parallel grid: [D, H, W], exact means over cells."""
    return cell_average(content.data, content.grid, grid)
