"""Linked panes in the browser, drawn there by NiiVue.

    python -m eval.pictures.panes --out _build/panes
    python -m eval.pictures.panes --scene samples --out book/interactive/panes

writes the volumes of a scene (``brain.js``), a still picture (``brain.png``) and the figure that
holds both (``brain.html``), for pages of the book. ``brain`` is one block of brain, encoded anew by
the release: the scan, two codes of it, and the error of one. ``samples`` is two sampled heads and
the tissue maps that they were given; it takes minutes, so its files are kept. The scripts that draw
both are in ``book/interactive/panes``.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from eval.coders.base import LINEAR, title_of
from eval.metrics import PEAK_PERCENTILE, peak_intensity, psnr
from eval.pictures.gallery import COLOUR_MAP
from eval.pictures.live import NOTICE
from eval.reconstruction.page import rebuilt_by_all, slope
from eval.subjects import Scan, brain_at_1_mm, cut
from medil.anatomy.classes import CLASSES, LabelMap
from medil.diffusion.anatomies import drawn_anatomy
from medil.diffusion.anatomy_first import covariates_of, sample_latent
from medil.diffusion.appearance import AppearanceFlow
from medil.diffusion.appearance_training import load_appearance_release
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.weights import load_release, short_digest, weights_sha256
from medil.plots import draw_plane, panels
from medil.system.files import atomic_output
from medil.volume import Volume

OUT = Path("_build/panes")
SIDE_MM, ABOVE_MM = 80.0, 8.0  # of the block; its middle above the brain's
GREY, ERROR_PERCENT, STEEPEST_PERCENT = (0.0, 100.0), 15, 10
ERROR_COLOURS, POINTS = "PuOr_r", 17  # purple is too dark, orange too bright
SEEDS, SAMPLE_MM = (0, 1), 2.0
FIGURE = """<link rel="stylesheet" href="../interactive/panes/panes.css">
<figure class="medil-panes" data-volumes="{name}">
<img src="../interactive/panes/{name}.png" width="{width}" height="{height}" alt="{alt}">
<figcaption>
<p><span class="caption-text">{caption}</span></p>
<noscript><p>The picture is a still one without JavaScript.</p></noscript>
<p class="medil-panes-note" hidden></p>
</figcaption>
</figure>
<script src="../interactive/panes/viewer.js" defer></script>
"""


@dataclass(frozen=True)
class Facts:
    """What is said of a block."""

    peak: float  # intensity that counts as 100 %
    best: str  # arm of the best linear code
    own_db: float  # PSNR of MedIL in the brain
    best_db: float
    at_borders: float  # share of MedIL's squared error


@dataclass(frozen=True)
class Pane:
    """One volume, [D, H, W] on the scene's grid.

    A grey one is in % and of `on_levels`, a signed one the difference of two such; one of classes
    holds whole numbers, and has a name for each.
    """

    title: str
    data: np.ndarray
    signed: bool = False
    classes: tuple[str, ...] = ()

    @property
    def window(self) -> tuple[float, float]:
        """The values of the first and the last colour."""
        if self.classes:
            return 0.0, float(len(self.classes) - 1)
        return (-float(ERROR_PERCENT), float(ERROR_PERCENT)) if self.signed else GREY

    @property
    def colours(self) -> Colormap:
        """From the first to the last colour."""
        return COLOUR_MAP if self.classes else colormaps[ERROR_COLOURS if self.signed else "gray"]


@dataclass(frozen=True)
class Scene:
    """Panes over one box, and what is said of them.

    Attributes:
        name: Of its files.
        panes: Four.
        grid: Theirs.
        point_mm: Where the crosshair begins.
        label: What every pane shows, for those who do not see it.
        caption: HTML.
        alt: Of the still picture: what is found in it.
        notice: Whose volumes these are.
    """

    name: str
    panes: tuple[Pane, ...]
    grid: Grid
    point_mm: np.ndarray
    label: str
    caption: str
    alt: str
    notice: str = ""
    weights: str = ""  # digest of those that made it, where the files are kept


def brain_scene(release: str) -> Scene:
    """The block of the brain at 1 mm: the scan, the release, the best linear code, the error."""
    block, what_it_is = brain_block()
    model, grid = load_release(release), block.volume.grid
    with torch.inference_mode():
        rebuilt = rebuilt_by_all(model, release, block.volume, model.encode(block.volume))
    facts = facts_of(block, rebuilt)
    truth = block.volume.data.double().numpy()
    scan, medil, code = on_levels(
        [100 / facts.peak * data for data in (truth, rebuilt["medil"], rebuilt[facts.best])]
    )
    panes = (
        Pane("Scan", scan), Pane(f"MedIL {release}", medil), Pane(title_of(facts.best), code),
        Pane("MedIL minus scan", medil - scan, signed=True),
    )  # fmt: skip
    return Scene(
        "brain", panes, grid, grid.centre_mm + np.array((0.0, 6.0, 0.0)),
        "A cut through the block at the place that the sliders set; left is the left of the head.",
        _caption(facts, what_it_is, f"{release} ({short_digest(weights_sha256(model))})"),
        _alt(facts), NOTICE if "MNI152" in what_it_is else "",
    )  # fmt: skip


def brain_block() -> tuple[Scan, str]:
    """The block that is shown, and one sentence that says whose brain it is."""
    brain, what_it_is = brain_at_1_mm()
    middle_mm = brain.volume.grid.index_to_ras(np.argwhere(brain.mask).mean(axis=0))
    return cut(brain, middle_mm + np.array((0.0, 0.0, ABOVE_MM)), [SIDE_MM] * 3), what_it_is


def facts_of(block: Scan, rebuilt: Mapping[str, np.ndarray]) -> Facts:
    """Score the codes of a block in its brain, and the share of MedIL's error at borders."""
    truth, mask = block.volume.data.double().numpy(), block.mask
    peak = peak_intensity(truth, mask)
    psnr_db = {name: psnr(truth, data, mask, peak) for name, data in rebuilt.items()}
    best = max((name for name in psnr_db if name in LINEAR), key=lambda name: psnr_db[name])
    steep = slope(truth, block.volume.grid.spacing_mm)
    borders = mask & (steep >= np.percentile(steep[mask], 100 - STEEPEST_PERCENT))
    squares = (rebuilt["medil"] - truth) ** 2
    share = float(squares[borders].sum() / squares[mask].sum())
    return Facts(peak, best, psnr_db["medil"], psnr_db[best], share)


def on_levels(volumes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Volumes rounded to 256 levels from the least to the largest value of all."""
    low, step = _levels(volumes)
    return [low + step * np.rint((data - low) / step) for data in volumes]


def _levels(volumes: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = min(data.min() for data in volumes), max(data.max() for data in volumes)
    return float(low), float(high - low) / 255


def _caption(facts: Facts, what_it_is: str, weights: str) -> str:
    return (
        f"A block of {SIDE_MM:g} mm, encoded by {weights} while this book was built (n = 1). "
        f"{escape(what_it_is)} In the brain MedIL has a PSNR of {facts.own_db:.2f} dB; "
        f"<em>{escape(title_of(facts.best))}</em>, the best linear code that keeps as many "
        f"numbers, has {facts.best_db:.2f} dB. Intensities are in % of the brain's "
        f"{PEAK_PERCENTILE:g}th percentile. The error ends at ±{ERROR_PERCENT} %: orange is too "
        f"bright, purple too dark. The steepest {STEEPEST_PERCENT} % of the brain's voxels, its "
        f"borders, hold {100 * facts.at_borders:.0f} % of MedIL's squared error. Drawn by NiiVue "
        "(BSD 2-Clause licence)."
    )


def _alt(facts: Facts) -> str:
    gain_db = facts.own_db - facts.best_db
    return (
        f"Four coronal cuts of one block: the scan, MedIL, the code {title_of(facts.best)}, and "
        f"MedIL minus the scan. MedIL is {'nearer to' if gain_db > 0 else 'farther from'} the "
        f"scan by {abs(gain_db):.2f} dB, and {100 * facts.at_borders:.0f} % of its squared error "
        f"lies on the steepest {STEEPEST_PERCENT} % of the voxels."
    )


def samples_scene() -> Scene:
    """Two heads of the released sampler, cut to what the maps hold, beside these maps."""
    flow, model = load_appearance_release(), load_release("tiny")
    drawn = [sampled(flow, model, seed) for seed in SEEDS]
    box = around([tissues.labels.numpy() > 0 for _, tissues in drawn])
    grid = drawn[0][0].grid.crop([s.start for s in box], [s.stop - s.start for s in box])
    scans = on_levels([100 * scan.data.double().numpy()[box] for scan, _ in drawn])
    panes: list[Pane] = []
    for seed, scan, (_, tissues) in zip(SEEDS, scans, drawn, strict=True):
        panes.append(Pane(f"Sample {seed}", scan))
        panes.append(Pane(f"Map of sample {seed}", tissues.labels.numpy()[box], classes=CLASSES))
    weights = short_digest(flow.weights_id)
    return Scene(
        "samples", tuple(panes), grid, grid.centre_mm,
        "A cut through the heads at the place that the sliders set; left is the left of the head.",
        f"Two sampled heads (seeds {' and '.join(map(str, SEEDS))}) at {SAMPLE_MM:g} mm, and the "
        f"tissue maps that they were given. They were made beforehand by the released sampler "
        f"({weights}). Intensities are in % of "
        "the model's scale. Drawn by NiiVue (BSD 2-Clause licence).",
        "Coronal cuts of two sampled heads beside their maps: ventricles and folds of each stand "
        "where its own map has them, and the two heads differ.", weights=weights,
    )  # fmt: skip


def sampled(flow: AppearanceFlow, model: MedIL, seed: int) -> tuple[Volume, LabelMap]:
    """One sampled head and its map on cubes of `SAMPLE_MM` over the model's box, 0 outside."""
    anatomy = drawn_anatomy(seed)
    latent = sample_latent(flow, model, anatomy, seed, covariates_of(flow))
    grid = anatomy.native.with_spacing(SAMPLE_MM)
    tissues = anatomy.tissues.resampled(grid)
    return Volume(model.field(latent).on(grid).data * (tissues.labels > 0), grid), tissues


def around(masks: Sequence[np.ndarray]) -> tuple[slice, ...]:
    """The smallest box that holds all masks."""
    where = np.argwhere(np.any(masks, axis=0))
    return tuple(map(slice, where.min(0).tolist(), (where.max(0) + 1).tolist()))


def stored(scene: Scene) -> list[nib.Nifti1Image]:
    """The panes as whole numbers: grey ones of 8 bits on one scale, signed ones of 16 bits."""
    low, step = _levels([p.data for p in scene.panes if not (p.signed or p.classes)])
    images = []
    for pane in scene.panes:
        first, unit = (0.0, 1.0) if pane.classes else (0.0 if pane.signed else low, step)
        kind = np.int16 if pane.signed else np.uint8
        whole = np.rint((pane.data - first) / unit).astype(kind)
        image = nib.Nifti1Image(whole, scene.grid.affine_vox2ras)
        image.header.set_slope_inter(unit, first)
        image.header.set_xyzt_units("mm")
        images.append(image)
    return images


def as_script(scene: Scene) -> str:
    """The text of a script: a page that was opened as a file may fetch nothing else."""
    images = [base64.b64encode(gzip.compress(i.to_bytes(), mtime=0)) for i in stored(scene)]
    panes = [
        {"title": pane.title, "data": image.decode("ascii"), **_looks(pane)}
        for pane, image in zip(scene.panes, images, strict=True)
    ]
    content = {
        "name": scene.name, "label": scene.label, "notice": scene.notice, "unit": "% of white",
        "weights": scene.weights, "window": GREY, "point_mm": scene.point_mm.tolist(),
        "first_mm": scene.grid.affine_vox2ras[:3, 3].tolist(),
        "pitch_mm": scene.grid.spacing_mm, "shape": scene.grid.shape, "panes": panes,
    }  # fmt: skip
    about = "// Written by `python -m eval.pictures.panes`."
    names = "((globalThis.Medil ??= {}).volumes ??= {})"
    return f"{about}\n{names}.{scene.name} = {json.dumps(content)};\n"


def read_script(path: Path) -> dict[str, Any]:
    """What `as_script` wrote."""
    text = path.read_text("utf-8")
    return json.loads(text[text.index(" = ") + 3 :].rstrip().rstrip(";"))


def _looks(pane: Pane) -> dict[str, Any]:
    """Window, colours and names of a pane that is not grey, as the viewer takes them."""
    if not (pane.signed or pane.classes):
        return {}
    points = len(pane.classes) or POINTS
    red, green, blue, _ = (255 * pane.colours(np.linspace(0, 1, points))).round().astype(int).T
    places = np.linspace(0, 255, points).round().astype(int)
    colours = {"R": red, "G": green, "B": blue, "A": np.full(points, 255), "I": places}
    return {
        "window": pane.window, "names": pane.classes,
        "colours": {name: values.tolist() for name, values in colours.items()},
    }  # fmt: skip


def still(scene: Scene) -> Figure:
    """The panes, cut where the crosshair begins."""
    figure, axes = panels(2, 2, panel_in=(3.1, 3.1))
    for ax, pane in zip(axes.flat, scene.panes, strict=True):
        volume = Volume(torch.from_numpy(pane.data), scene.grid)
        draw_plane(ax, volume, "coronal", scene.point_mm, pane.window).set_cmap(pane.colours)
        ax.set_title(pane.title)
        ax.label_outer()
    return figure


def write(scene: Scene, folder: Path) -> None:
    """Write a scene's three files."""
    figure = still(scene)
    with atomic_output(folder / f"{scene.name}.png", force=True) as part:
        figure.savefig(part, format="png")
    width, height = (round(side * figure.dpi) for side in figure.get_size_inches())
    texts = {
        "js": as_script(scene),
        "html": FIGURE.format(
            name=scene.name, width=width, height=height, alt=escape(scene.alt),
            caption=scene.caption,
        ),
    }  # fmt: skip
    for suffix, text in texts.items():
        with atomic_output(folder / f"{scene.name}.{suffix}", force=True) as part:
            part.write_text(text, "utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about what is missing."""
    parser = argparse.ArgumentParser(prog="python -m eval.pictures.panes", description=__doc__)
    scenes = {"brain": lambda: brain_scene("tiny"), "samples": samples_scene}
    parser.add_argument("--scene", choices=scenes, default="brain", help="what to show (brain)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        write(scenes[options.scene](), options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {options.scene}.js, .png, .html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
