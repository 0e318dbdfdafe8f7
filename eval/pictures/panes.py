"""Linked panes in the browser: one block of brain, two codes of it, and the error of one.

    python -m eval.pictures.panes --out _build/panes

writes the volumes (``brain.js``), a still picture (``brain.png``) and the figure that holds both
(``brain.html``), for a page of the book. The release encodes the block anew. In the browser NiiVue
draws it, by the scripts in ``book/interactive/panes``.
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
from matplotlib.figure import Figure

from eval.coders.base import LINEAR, title_of
from eval.metrics import PEAK_PERCENTILE, peak_intensity, psnr
from eval.pictures.live import NOTICE
from eval.reconstruction.page import rebuilt_by_all, slope
from eval.subjects import Scan, brain_at_1_mm, cut
from medil.errors import InputError
from medil.grid import Grid
from medil.model.weights import load_release, short_digest, weights_sha256
from medil.plots import draw_plane, panels
from medil.system.files import atomic_output
from medil.volume import Volume

OUT = Path("_build/panes")
SIDE_MM, ABOVE_MM = 80.0, 8.0  # of the block; its middle above the brain's
WHITE_PERCENT, ERROR_PERCENT, STEEPEST_PERCENT = 100, 15, 10
COLOURS, POINTS = "PuOr_r", 17  # of signed errors: purple is too dark, orange too bright
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
    """One volume, [D, H, W] in % on the scene's grid, of `on_levels` or a difference of such."""

    title: str
    data: np.ndarray
    signed: bool = False


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

    @property
    def window(self) -> tuple[float, float]:
        """Black and white of the grey panes."""
        return 0.0, float(WHITE_PERCENT)


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


def stored(scene: Scene) -> list[nib.Nifti1Image]:
    """The panes as whole numbers on one scale: grey ones of 8 bits, signed ones of 16."""
    low, step = _levels([pane.data for pane in scene.panes if not pane.signed])
    images = []
    for pane in scene.panes:
        kind, first = (np.int16, 0.0) if pane.signed else (np.uint8, low)
        whole = np.rint((pane.data - first) / step).astype(kind)
        image = nib.Nifti1Image(whole, scene.grid.affine_vox2ras)
        image.header.set_slope_inter(step, first)
        image.header.set_xyzt_units("mm")
        images.append(image)
    return images


def as_script(scene: Scene) -> str:
    """The text of a script: a page that was opened as a file may fetch nothing else."""
    images = [base64.b64encode(gzip.compress(i.to_bytes(), mtime=0)) for i in stored(scene)]
    panes = [
        {"title": pane.title, "data": image.decode("ascii"), **(_signed() if pane.signed else {})}
        for pane, image in zip(scene.panes, images, strict=True)
    ]
    content = {
        "name": scene.name, "label": scene.label, "notice": scene.notice, "unit": "% of white",
        "window": scene.window, "point_mm": scene.point_mm.tolist(),
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


def _signed() -> dict[str, Any]:
    """Window and colours of a signed pane, as NiiVue takes them."""
    places = np.linspace(0, 255, POINTS).round().astype(int)
    red, green, blue, _ = (255 * colormaps[COLOURS](places)).round().astype(int).T.tolist()
    colours = {"R": red, "G": green, "B": blue, "A": [255] * POINTS, "I": places.tolist()}
    return {"window": [-ERROR_PERCENT, ERROR_PERCENT], "colours": colours}


def still(scene: Scene) -> Figure:
    """The panes, cut where the crosshair begins."""
    figure, axes = panels(2, 2, panel_in=(3.1, 3.1))
    for ax, pane in zip(axes.flat, scene.panes, strict=True):
        volume = Volume(torch.from_numpy(pane.data), scene.grid)
        ends, colours = (scene.window, "gray")
        if pane.signed:
            ends, colours = (-float(ERROR_PERCENT), float(ERROR_PERCENT)), COLOURS
        draw_plane(ax, volume, "coronal", scene.point_mm, ends, colours=colours)
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
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the files")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        write(brain_scene(options.release), options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: brain.js, brain.png, brain.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
