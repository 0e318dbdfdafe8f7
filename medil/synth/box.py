"""The box that drawn heads are centred in: all their latents then share one grid."""

from __future__ import annotations

from medil.errors import InputError
from medil.grid import Grid

UNIT_MM = 32.0  # the box is 5 x 6 x 5 of these; each holds a whole number of voxels
BOX_UNITS = (5, 6, 5)


def box_grid(spacing_mm: float) -> Grid:
    """The box of 160 x 192 x 160 mm around (0, 0, 0), RAS+, in voxels that divide 32 mm.

    Raises:
        InputError: The voxels do not fill the box.
    """
    parts = round(UNIT_MM / spacing_mm)
    if parts < 1 or abs(parts * spacing_mm - UNIT_MM) > 1e-6 * UNIT_MM:
        raise InputError(f"voxels of {spacing_mm:g} mm do not fill a box of {UNIT_MM:g} mm units.")
    shape = [n * parts for n in BOX_UNITS]
    first_mm = [-0.5 * (n - 1) * UNIT_MM / parts for n in shape]
    return Grid.from_spacing(shape, UNIT_MM / parts, first_mm)
