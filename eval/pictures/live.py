"""The live picture of the first page: one block of the MNI152 template, as the decoder left it.

    python -m eval.pictures.live

writes ``book/interactive/live/block.js`` and, for pages that cannot run it, ``still.png``. The
block is encoded by the release. What the browser gets is all that rendering still needs: the
amplitudes of the integrated LTE on the fine grid, the splines of the closed form, and the scan's
voxels to compare with. It renders them as `medil.layers.projection.synthesise` does.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medil.data.samples import mni152_template
from medil.errors import InputError
from medil.grid import Grid
from medil.io.intensity import Intensity, robust_intensity
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.model.base import MIDDLE
from medil.model.weights import load_release, short_digest, weights_sha256
from medil.system.files import atomic_output
from medil.volume import Volume

FOLDER = Path("book/interactive/live")
FIRST_MM = (-39.5, -45.5, -31.5)  # centre of the block's first voxel: ventricles, hippocampi
SHAPE = (80, 20, 80)  # voxels of 1 mm; whole latent cells
FIELD_MM = 80.0  # side of the square that is shown
STILL_MM = 1.0
LEVELS = {"int8": 127, "int16": 32767, "uint8": 255}
TEMPLATE_STEP = 1 / 255  # the template is stored in 8 bits
NOTICE = (
    "MNI152 template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, "
    "Montreal Neurological Institute, McGill University. Permission to use, copy, modify, and "
    "distribute this software and its documentation for any purpose and without fee is hereby "
    "granted, provided that the above copyright notice appear in all copies. The authors and "
    "McGill University make no representations about the suitability of this software for any "
    'purpose. It is provided "as is" without express or implied warranty.'
)


@dataclass(frozen=True)
class Part:
    """Coefficients of one basis on a grid: [F, D, H, W] float32, and the pitch of the grid."""

    values: np.ndarray
    pitch_mm: float


@dataclass(frozen=True)
class Block:
    """The encoded block, and what is left to render: all on the model's scale of 0 to 1."""

    volume: Volume
    latent: Latent
    learned: Part
    splines: Part
    scan: Part

    def plane(self, voxel_mm: float, slice_mm: float = 0.0, tilt_deg: float = 0.0) -> Grid:
        """The square of cubic voxels that the page shows, [n, 1, n], about the block's middle."""
        n = max(1, round(FIELD_MM / voxel_mm))
        first_mm = [-(n - 1) / 2 * voxel_mm, slice_mm, -(n - 1) / 2 * voxel_mm]
        origin_mm = self.volume.grid.centre_mm + first_mm
        grid = Grid.from_spacing((n, 1, n), voxel_mm, origin_mm)
        return grid.rotated((0, 1, 0), tilt_deg) if tilt_deg else grid

    @property
    def window(self) -> tuple[float, float]:
        """Black and white of the display: 1st and 99.8th percentile of the scan."""
        low, high = np.percentile(self.scan.values, (1, 99.8))
        return round(float(low), 3), round(float(high), 3)


def cut_block() -> tuple[Volume, Intensity]:
    """The block of the template, and the intensity scale of the whole."""
    template = mni152_template()
    first = np.rint(template.grid.ras_to_index(FIRST_MM)).astype(int)
    i, j, k = (slice(a, a + n) for a, n in zip(first.tolist(), SHAPE, strict=True))
    block = Volume(template.data[i, j, k].clone(), template.grid.crop(first, SHAPE))
    return block, robust_intensity(template.data)


@torch.inference_mode()
def encode_block(model: MedIL) -> Block:
    """Encode the block, and run the decoder up to the layer that renders."""
    volume, scale = cut_block()
    latent = model.encode(volume, scale)
    z = latent.mean[None]
    features = model.decode_features(z)  # float32: of no processor alone
    amplitudes = model.decoder.render.amplitude(features)[0].numpy()  # [J^3, f d, f h, f w]
    spline, fine = model.splines.coefficients(z, latent.grid)
    pitch_mm = fine.spacing_mm[0]
    return Block(
        volume, latent, Part(amplitudes, pitch_mm), Part(spline[0, 0, 0, 0].numpy(), pitch_mm),
        Part(scale.forward(volume.data)[None].numpy(), volume.grid.spacing_mm[0]),
    )  # fmt: skip


def pack(part: Part, kind: str, step: float | None = None) -> dict[str, Any]:
    """A part as a page reads it: whole numbers, and for each function the step between them.

    Without a `step`, each function's own, such that its largest coefficient still fits.
    """
    steps = np.abs(part.values).max(axis=(1, 2, 3)) / LEVELS[kind]
    if step is not None:
        steps = np.full(len(part.values), step)
    stored = np.rint(part.values / steps[:, None, None, None]).astype(kind)
    packed = gzip.compress(stored.astype(np.dtype(kind).newbyteorder("<")).tobytes(), mtime=0)
    return {
        "type": kind,
        "shape": list(stored.shape),
        "pitch_mm": part.pitch_mm,
        "steps": [float(f"{step:.6g}") for step in steps],
        "data": base64.b64encode(packed).decode("ascii"),
    }


def unpack(stored: dict[str, Any]) -> np.ndarray:
    """[F, D, H, W] whole numbers of what `pack` gave."""
    data = gzip.decompress(base64.b64decode(stored["data"]))
    kind = np.dtype(stored["type"]).newbyteorder("<")
    return np.frombuffer(data, kind).reshape(stored["shape"])


def as_script(model: MedIL, block: Block) -> str:
    """The text of block.js: a script, since a page that was opened as a file may fetch nothing."""
    scale = block.latent.intensity
    content = {
        "weights": short_digest(weights_sha256(model)),
        "notice": NOTICE,
        "harmonics": model.config.harmonics,
        "middle": MIDDLE,
        "window": block.window,
        "learned": pack(block.learned, "int8"),
        "splines": pack(block.splines, "int16"),
        "scan": pack(block.scan, "uint8", TEMPLATE_STEP / (scale.high - scale.low)),
    }
    about = "// Written by `python -m eval.pictures.live`."
    return f"{about}\n(globalThis.Medil ??= {{}}).block = {json.dumps(content, indent=1)};\n"


def read_script(path: Path = FOLDER / "block.js") -> dict[str, Any]:
    """What `as_script` wrote."""
    text = path.read_text("utf-8")
    return json.loads(text[text.index("block = ") + len("block = ") :].rstrip().rstrip(";"))


def still(model: MedIL, block: Block) -> np.ndarray:
    """[H, W] the middle plane at `STILL_MM`, superior up, black 0 and white 1."""
    plane = model.decode(block.latent, block.plane(STILL_MM), precision="float32")
    low, high = block.window
    shown = (block.latent.intensity.forward(plane.data)[:, 0].numpy() - low) / (high - low)
    return shown.clip(0, 1).T[::-1]


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0, or 2 after one sentence about what is missing."""
    import matplotlib.pyplot as plt

    parser = argparse.ArgumentParser(prog="python -m eval.pictures.live", description=__doc__)
    parser.add_argument("--release", default="tiny", help="which released weights (tiny)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder of both files")
    options = parser.parse_args(arguments)
    try:
        model = load_release(options.release)
        block = encode_block(model)
        with atomic_output(options.out / "block.js", force=True) as temporary:
            temporary.write_text(as_script(model, block), "utf-8")
        with atomic_output(options.out / "still.png", force=True) as temporary:
            large = np.kron(still(model, block), np.ones((5, 5)))
            plt.imsave(temporary, large, cmap="gray", vmin=0, vmax=1, format="png")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: block.js, still.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
