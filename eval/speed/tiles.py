"""How far a latent that was encoded in tiles lies from the one that was encoded whole."""

from __future__ import annotations

import torch

from eval.rows import spacing_text
from eval.speed.sizes import Sizes
from eval.speed.timing import TILES, Timing
from eval.subjects import brain_at_1_mm, cut
from medil.model.weights import load_release
from medil.volume import Volume, robust_intensity

THICK = (1, 3, 5)  # latent cells of a tile


def measure(sizes: Sizes, release: str) -> list[Timing]:
    """Largest error of the latent's mean for odd tiles, in its standard deviations."""
    scan, description = brain_at_1_mm()
    sides = [sizes.tile_mm, sizes.tile_mm - 3, sizes.tile_mm + 2]  # no whole number of cells
    crop = cut(scan, scan.volume.grid.centre_mm, sides).volume
    model = load_release(release)
    errors = tiled_errors(model, crop, THICK)
    n_voxels, spacing = crop.grid.n_voxels, spacing_text(crop.grid)
    shape = " x ".join(map(str, crop.grid.shape))
    return [
        Timing(release, TILES, f"{shape}, tiles of {thick} cells", {"max_error": error}, n_voxels,
              subject="crop of a brain at 1 mm", spacing_in_mm=spacing, spacing_out_mm="4",
              weights_sha256=model.weights_id, config={"said": description})
        for thick, error in errors.items()
    ]  # fmt: skip


def tiled_errors(model, volume: Volume, thick: tuple[int, ...]) -> dict[int, float]:
    """Tile's thickness in latent cells to the largest error of the mean over its deviation.

    The judge is `encode_tensor`, which knows no tiles.

    Args:
        model: A `MedIL`.
        volume: To be encoded.
        thick: Of the tiles.

    Returns:
        Relative to the standard deviation, over cells, of each channel.
    """
    latent_grid = model.latent_grid(volume.grid)
    intensity = robust_intensity(volume.data)
    x = intensity.forward(volume.data)[None, None]
    with torch.inference_mode():
        whole = model.encode_tensor(x, volume.grid, latent_grid)[0][0]  # [C, d, h, w]
    scale = whole.flatten(1).std(dim=1)
    errors = {}
    for cells in thick:
        tiled = model.encode(volume, intensity, tile=cells).mean
        apart = (tiled - whole).abs().flatten(1).amax(dim=1)
        errors[cells] = float(torch.max(apart / scale))
    return errors
