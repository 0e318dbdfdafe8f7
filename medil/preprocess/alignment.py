"""AC-PC alignment as a rigid change of the affine: the voxels stay as they are.

A stripped brain is registered to the MNI152 template by a similarity; its scale is dropped, so
distances in the brain stay true. The point that falls on the template's origin, which lies
at the anterior commissure, becomes the origin.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.data.samples import mni152_template
from medil.errors import InputError, needs
from medil.grid import Grid
from medil.io.nifti import aligned_source
from medil.regrid import resample
from medil.volume import Volume

WORKING_MM = 2.0  # of both images
BINS, SHARE, SEED = 32, 0.3, 7  # of the mutual information: share of voxels that it samples
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # SimpleITK's world in ours


def alignment(volume: Volume, mask: Tensor) -> np.ndarray:
    """The rigid transform of world mm that turns a head upright.

    Args:
        volume: A T1w head.
        mask: [D, H, W] bool, its brain.

    Returns:
        [4, 4] float64: RAS+ mm of the scan to RAS+ mm in which the anterior commissure lies near
        (0, 0, 0) and the line to the posterior one along A.

    Raises:
        InputError: SimpleITK or nilearn is missing, a sheared grid, or a registration that fails.
    """
    with needs("preprocess", "alignment needs SimpleITK"):
        import SimpleITK as sitk
    axes = volume.grid.directions
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-4):
        raise InputError("the grid is sheared; a rigid alignment needs axes at right angles.")
    fixed, moving = _template(), _image(_working(volume, mask))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SHARE, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-4, numberOfIterations=200
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 1])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetNumberOfThreads(1)  # so that a second run gives the same
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Similarity3DTransform(),
        sitk.CenteredTransformInitializerFilter.MOMENTS,
    )  # fmt: skip
    method.SetInitialTransform(start, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError as error:
        raise InputError("the head could not be registered to the MNI152 template.") from error
    found = sitk.Similarity3DTransform(start)
    turn = np.array(found.GetMatrix()).reshape(3, 3) / found.GetScale()
    origin_mm = np.array(found.TransformPoint((0.0, 0.0, 0.0)))  # LPS, in the scan
    rigid = np.eye(4)
    rigid[:3, :3] = turn.T
    rigid[:3, 3] = -turn.T @ origin_mm
    return LPS @ rigid @ LPS


def _working(volume: Volume, mask: Tensor) -> Volume:
    """The brain alone in voxels of about `WORKING_MM`, background 0."""
    data = torch.where(mask, volume.data.float().nan_to_num(), 0.0)
    coarse = [max(WORKING_MM, mm) for mm in volume.grid.spacing_mm]
    grid = volume.grid.covering(coarse)
    return Volume(torch.from_numpy(resample(data.numpy(), volume.grid, grid)).float(), grid)


@lru_cache(maxsize=1)
def _template() -> Any:
    template = mni152_template()
    return _image(_working(template, template.data > 0))


def _image(volume: Volume) -> Any:
    """A volume as an image of SimpleITK, in its world."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.numpy().transpose(2, 1, 0)))
    affine = LPS @ volume.grid.affine_vox2ras
    image.SetSpacing([float(mm) for mm in volume.grid.spacing_mm])
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((LPS[:3, :3] @ volume.grid.directions).ravel().tolist())
    return image


def moved(volume: Volume, rigid: np.ndarray) -> Volume:
    """The same voxels where a rigid transform of world mm puts them, also in the file."""
    source = volume.source
    if source is not None:
        source = aligned_source(source, rigid @ source.grid.affine_vox2ras)
    grid = Grid(volume.grid.shape, rigid @ volume.grid.affine_vox2ras)
    return Volume(volume.data, grid, source)


def rotation_deg(rigid: np.ndarray) -> float:
    """The angle of a rigid transform."""
    cosine = (np.trace(rigid[:3, :3]) - 1) / 2
    return math.degrees(math.acos(float(np.clip(cosine, -1, 1))))
