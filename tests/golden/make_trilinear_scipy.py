"""Make trilinear_scipy.json: what scipy gives for `sample_trilinear` (run from the checkout).

Scipy works in voxel indices, so the script also checks nibabel's affine arithmetic.
"""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation


def main() -> None:
    """Write the golden file beside this script."""
    rng = np.random.default_rng(7)
    shape = (5, 6, 4)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.3, -0.2, 0.5]).as_matrix() * (1.0, 1.5, 3.0)
    affine[:3, 3] = (-20.0, 13.5, 4.25)
    values = rng.normal(size=shape).round(3)
    index = rng.uniform(-1.0, np.array(shape), size=(40, 3))  # some outside: edge values
    points_mm = nib.affines.apply_affine(affine, index)
    back = nib.affines.apply_affine(np.linalg.inv(affine), points_mm)
    sampled = ndimage.map_coordinates(values, back.T, order=1, mode="nearest")
    golden = {
        "tool": "scipy.ndimage.map_coordinates(order=1, mode='nearest')",
        "shape": shape,
        "affine_vox2ras": affine.tolist(),
        "values": values.ravel().tolist(),
        "points_mm": points_mm.tolist(),
        "sampled": sampled.tolist(),
    }
    Path(__file__).with_name("trilinear_scipy.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
