"""Small images of several kinds for the tests of the patch store."""

import numpy as np

from medil.grid import Grid
from tests.images import write_nifti

SHAPES = {"even": (40, 70, 33), "slices": (31, 29, 12), "turned": (25, 36, 30)}
SPACINGS = {"even": (1.0, 0.8, 1.1), "slices": (0.9, 0.9, 4.0), "turned": (1.2, 1.2, 1.2)}


def stored_head(name):
    """A bright ellipsoid of rough texture in air, and where it lies; as int16, float32, scaled."""
    shape = SHAPES[name]
    rng = np.random.default_rng(len(name))
    middle = (np.array(shape) - 1) / 2
    radius = np.linalg.norm((np.indices(shape).T - middle) / (middle * 0.8), axis=-1).T
    data = (radius < 1) * (300 + 200 * rng.random(shape)) + 3 * rng.random(shape)
    grid = Grid.from_spacing(shape, SPACINGS[name], (-11, 7, 20))
    if name == "turned":
        return data.astype(np.float32), grid.rotated((1, 2, -0.5), 17).reoriented("LPS")[0]
    return data.astype(np.int16), grid


def write_images(folder):
    """Three .nii.gz: integers of two spacings, and an oblique one in floating point."""
    folder.mkdir()
    paths = []
    for name in SHAPES:
        data, grid = stored_head(name)
        paths.append(write_nifti(folder / f"{name}.nii.gz", data, grid.affine_vox2ras))
    return paths
