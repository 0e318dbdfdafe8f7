"""What is measured of one head, and between heads: numbers by arm, condition and metric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

from eval.coders.base import MEDIL
from eval.latent_consistency import conditions as names
from eval.latent_consistency import latents as on_cells
from eval.latent_consistency.conditions import ANOTHER, BANDS_PER_MM, SAME, SMOOTHER, WHOLE
from eval.latent_consistency.heads import Content, band_limited, scan_smooth, scan_whole, turned
from eval.latent_consistency.latents import Coder, coders, differences, latent_grid
from eval.metrics import peak_intensity, psnr
from medil.grid import Grid
from medil.model.base import LatentAutoencoder

FOREGROUND = 0.02  # PSNR counts where the truth is brighter, on the 0 ... 1 scale
Scanner = Callable[[Grid], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """One number about one head."""

    arm: str  # who encoded
    condition: str  # as in `conditions`
    metric: str  # a key of `conditions.UNITS`
    value: float  # in that unit; not finite where PSNR has no bound
    scanned: Grid  # what was encoded
    seen_on: Grid  # latent cells that were compared, or voxels of the rendering
    cells: Grid  # of the latent
    time_s: float  # what encoding took


class Bench:
    """One arm on the 1 mm block of one head: encode there, compare latents, score renderings.

    The model is on the CPU; oblique grids need its closed form.
    """

    def __init__(self, model: LatentAutoencoder, coder: Coder, block: Grid) -> None:
        self.model, self.coder, self.block = model, coder, block
        self.cells = latent_grid(block, model.config.latent_spacing_mm)

    def encode(self, data: np.ndarray, grid: Grid, cells: Grid | None = None):
        """A latent on cells (the block's when None), and the seconds it took."""
        started = time.perf_counter()
        z = self.coder.latent(data, grid, cells or self.cells)
        return z, time.perf_counter() - started

    def bring_back(self, z: Tensor, cells: Grid) -> Tensor:
        """A latent on other cells, brought to the block's in closed form."""
        return on_cells.transport(self.model, z, cells, self.cells, self.block)

    def compare(
        self, condition: str, reference: Tensor, other: Tensor, scanned: Grid, time_s: float
    ) -> Iterator[Finding]:
        """Every difference in every part of the channels, well inside both scans."""
        where = on_cells.counted(self.cells, (self.block, scanned))
        a, b = reference[:, where], other[:, where]
        for part, channels in names.parts(self.model).items():
            about = self.coder.name, f"{condition} | {part}"
            for metric, value in differences(a[channels], b[channels]).items():
                yield Finding(*about, metric, value, scanned, self.cells, self.cells, time_s)

    def score(self, condition: str, z: Tensor, truth: np.ndarray) -> Finding:
        """PSNR of a latent's rendering on the block against what is there.

        It is taken inside the head, as far from the block's faces as latents are compared.
        """
        estimate = self.coder.rendering(z, self.cells, self.block)
        margin = round(names.MARGIN_CELLS * max(self.cells.spacing_mm) / max(self.block.spacing_mm))
        inner = tuple(slice(margin, n - margin) for n in self.block.shape)
        mask = truth[inner] > FOREGROUND
        db = psnr(truth[inner], estimate[inner], mask, peak_intensity(truth[inner], mask))
        grids = self.block, self.block, self.cells
        return Finding(self.coder.name, condition, "psnr", db, *grids, 0.0)


def scanners(content: Content) -> dict[str, Scanner]:
    """How each content of a head is scanned; a grid once, whoever encodes it."""
    found: dict[str, Scanner] = {WHOLE: cache(partial(scan_whole, content))}
    for band in BANDS_PER_MM:
        found[band] = cache(partial(scan_smooth, band_limited(content, band)))
    return found


@torch.inference_mode()
def measure(model: LatentAutoencoder, content: Content, arm: str = MEDIL) -> list[Finding]:
    """Every number of one head, arm by arm; the model runs on the CPU."""
    scans, content_mm = scanners(content), max(content.grid.spacing_mm)
    found: list[Finding] = []
    for coder in coders(model, arm):
        bench = Bench(model, coder, content.block)
        for name, asked in places_of(content_mm).items():
            found += other_places(bench, name, scans[name], asked)
        if model.config.closed_form:
            found += other_cells(bench, scans[SAME])
        found += wrong_headers(bench, scans[WHOLE])
        if moves(content_mm):
            found += right_headers(bench, scans[WHOLE])
        if "coarse" in names.parts(model):
            found.append(with_coarse_part_of_2_mm(bench, scans[WHOLE]))
    return found


def places_of(content_mm: float) -> dict[str, dict[str, names.Place]]:
    """The grids that scan each content; the whole content only where that is a different scan."""
    block = Grid.from_spacing((72, 72, 72), 1.0)
    whole = {n: p for n, p in names.PLACES.items() if names.can_scan(content_mm, p(block))}
    return {SAME: names.FINE, SMOOTHER: names.PLACES, WHOLE: whole}


def moves(content_mm: float) -> bool:
    """Whether a head can be scanned at 1 mm elsewhere: its content must be finer than 1 mm."""
    return content_mm < 1


def other_places(
    bench: Bench, content: str, scan: Scanner, places: Mapping[str, names.Place]
) -> Iterator[Finding]:
    """One content scanned on parallel grids, all encoded on the same cells."""
    reference, _ = bench.encode(scan(bench.block), bench.block)
    for name, place in places.items():
        grid = place(bench.block)
        z, time_s = bench.encode(scan(grid), grid)
        yield from bench.compare(f"{content} -> {name}", reference, z, grid, time_s)


def other_cells(bench: Bench, scan: Scanner) -> Iterator[Finding]:
    """A band-limited content on latent cells elsewhere, which oblique voxels need.

    Latents are brought back in closed form, and compared with one that went the same way.
    """
    block, cells = bench.block, bench.cells
    reference, time_s = bench.encode(scan(block), block)
    home = bench.bring_back(reference, cells)
    condition = f"{SAME} -> {names.TRANSPORTED}"
    yield from bench.compare(condition, reference, home, block, time_s)
    shifted = cells.shifted(block.directions @ np.asarray(names.CELL_SHIFT_MM))
    oblique = turned(block)
    own = latent_grid(oblique, bench.model.config.latent_spacing_mm)
    for name, grid, there in (
        (names.SHIFTED_CELLS, block, shifted), (names.TURNED, oblique, own),
    ):  # fmt: skip
        z, time_s = bench.encode(scan(grid), grid, there)
        condition = f"{SAME} -> {name}"
        yield from bench.compare(condition, home, bench.bring_back(z, there), grid, time_s)


def wrong_headers(bench: Bench, scan: Scanner) -> Iterator[Finding]:
    """The same voxels under headers that are shifted or turned, on the cells of the true one.

    What is rendered on the true voxels is scored against them. A turned header needs cells
    of its own, so its latent is brought back, and compared with one that went the same way.
    """
    block, data = bench.block, scan(bench.block)
    reference, time_s = bench.encode(data, block)
    for offset_mm in names.HEADER_MM:
        header, name = block.shifted(names.header_shift(block, offset_mm)), names.off(offset_mm)
        z, time_s = bench.encode(data, header)
        yield from bench.compare(f"{WHOLE} -> {name}", reference, z, header, time_s)
        yield bench.score(names.rendered(name if offset_mm else ""), z, data)
    if not bench.model.config.closed_form:
        return
    home = bench.bring_back(reference, bench.cells)
    yield bench.score(names.rendered(names.TRANSPORTED), home, data)
    for angle_deg in names.HEADER_DEG:
        header, name = turned(block, angle_deg), names.turned_by(angle_deg)
        z = bench.bring_back(reference, on_cells.turned_with(bench.cells, block, header))
        yield from bench.compare(f"{WHOLE} -> {name}", home, z, header, time_s)
        yield bench.score(names.rendered(name), z, data)


def right_headers(bench: Bench, scan: Scanner) -> Iterator[Finding]:
    """The controls: scans that were truly taken where a header off by so much would say.

    The head and its latent cells stay; voxels and header move together. And a head that lies
    elsewhere, seen from its own frame: scanner and cells move the other way, so its numbers are
    compared cell by cell of the scanner, as if nobody knew that it moved.
    """
    block, data = bench.block, scan(bench.block)
    reference, _ = bench.encode(data, block)
    for offset_mm in names.HEADER_MM[1:]:
        step_mm = names.header_shift(block, offset_mm)
        there, name = block.shifted(step_mm), names.truly(offset_mm)
        z, time_s = bench.encode(scan(there), there)
        yield from bench.compare(f"{WHOLE} -> {name}", reference, z, there, time_s)
        yield bench.score(names.rendered(name), z, data)
        there, name = block.shifted(-step_mm), names.moved(offset_mm)
        z, time_s = bench.encode(scan(there), there, bench.cells.shifted(-step_mm))
        yield from bench.compare(f"{WHOLE} -> {name}", reference, z, there, time_s)


def with_coarse_part_of_2_mm(bench: Bench, scan: Scanner) -> Finding:
    """What a latent renders at 1 mm once its means over cells are those of a 2 mm scan."""
    truth, coarser = scan(bench.block), names.PLACES["2 mm"](bench.block)
    own, _ = bench.encode(truth, bench.block)
    means, _ = bench.encode(scan(coarser), coarser)
    mixed = torch.cat([means[:1], own[1:]])
    return bench.score(names.rendered(names.COARSE_OF_2_MM), mixed, truth)


@torch.inference_mode()
def references(
    model: LatentAutoencoder, content: Content, arm: str = MEDIL
) -> dict[tuple[str, str], Tensor]:
    """The 1 mm latent of every content, by (arm, content): [C, d, h, w] on the block's cells."""
    scans = scanners(content)
    found = {}
    for coder in coders(model, arm):
        bench = Bench(model, coder, content.block)
        for name, scan in scans.items():
            found[coder.name, name] = bench.encode(scan(content.block), content.block)[0]
    return found


def between(
    model: LatentAutoencoder, blocks: Sequence[Grid], latents: Sequence[Mapping], arm: str = MEDIL
) -> list[list[Finding]]:
    """Mean distance of each head's latents (from `references`) from those of the other heads."""
    everyone: list[list[Finding]] = []
    for block, mine in zip(blocks, latents, strict=True):
        everyone.append([])
        for coder, content in product(coders(model, arm), (WHOLE, *BANDS_PER_MM)):
            bench, key = Bench(model, coder, block), (coder.name, content)
            name = f"{content} -> {ANOTHER}"
            pairs = [
                list(bench.compare(name, mine[key], theirs[key], block, 0.0))
                for theirs in latents if theirs is not mine
            ]  # fmt: skip
            everyone[-1] += [_mean(same) for same in zip(*pairs, strict=True)]
    return everyone


def _mean(same: Sequence[Finding]) -> Finding:
    return replace(same[0], value=float(np.mean([f.value for f in same])))
