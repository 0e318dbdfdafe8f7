"""Prepare raw heads on their own grid: brain mask, bias field, AC-PC alignment by the affine.

No voxel is resampled. Alignment changes where the voxels lie, not what they hold.
"""
