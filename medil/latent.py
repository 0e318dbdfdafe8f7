"""A volume in latent space: its values, their grid in mm, and what rendering needs.

Latent files are safetensors (nothing is unpickled) with the geometry as JSON metadata.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from medil.checksums import parsed
from medil.errors import InputError
from medil.formats import LATENT
from medil.grid import Grid
from medil.io.nifti import is_rigid, place_from_json, place_to_json
from medil.system.tensors import read_tensors, write_tensors
from medil.volume import Intensity, Source


@dataclass(frozen=True)
class Latent:
    """A volume in latent space, and what is needed to render it.

    Args:
        mean: [C, d, h, w].
        log_var: [C, d, h, w], log-variance of the Gaussian around the mean.
        grid: The latent grid; its pitch is the model's, its axes are the volume's.
        native: The grid of the volume that was encoded.
        intensity: From the 0 ... 1 scale to the volume's units.
        source: The file the volume came from.
        weights_id: Digest of the weights that encoded it.
        missing: [D, H, W] bool on `native`: voxels that had no value, or None.

    Example:
        >>> cells, voxels = (Grid.from_spacing((n, n, n), 24 / n) for n in (6, 24))
        >>> numbers = torch.zeros(8, 6, 6, 6)
        >>> latent = Latent(numbers, numbers, cells, voxels, Intensity(0.0, 100.0))
        >>> latent.n_numbers, latent.grid.spacing_mm
        (1728, (4.0, 4.0, 4.0))
    """

    mean: Tensor
    log_var: Tensor
    grid: Grid
    native: Grid
    intensity: Intensity
    source: Source | None = None
    weights_id: str = ""
    missing: Tensor | None = None

    @property
    def n_numbers(self) -> int:
        """Number of values in the latent mean."""
        return self.mean.numel()

    def sample(self, generator: torch.Generator | None = None) -> Latent:
        """A draw from the latent's Gaussian, as a latent (generator on the CPU).

        Example:
            >>> cells, numbers = Grid.from_spacing((6, 6, 6), 4.0), torch.zeros(8, 6, 6, 6)
            >>> latent = Latent(numbers, numbers, cells, cells, Intensity(0.0, 100.0))
            >>> draw = latent.sample(torch.Generator().manual_seed(0))
            >>> draw.mean.shape == latent.mean.shape, bool(draw.mean.std() > 0.9)
            (True, True)
        """
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return replace(self, mean=self.mean + noise * torch.exp(self.log_var / 2))

    def crop_mm(self, low_mm: ArrayLike, high_mm: ArrayLike) -> Latent:
        """The part of the latent whose cells cover the box between two (R, A, S) corners, in mm.

        Renderings equal those of the whole latent, except within a few cells of the new faces,
        which networks treat as the edge of the image. `native` and all else stay as they are.

        Raises:
            InputError: A box that is empty or lies outside the latent's.

        Example:
            >>> cells, numbers = Grid.from_spacing((6, 6, 6), 4.0), torch.zeros(8, 6, 6, 6)
            >>> latent = Latent(numbers, numbers, cells, cells, Intensity(0.0, 100.0))
            >>> latent.crop_mm((-2.0, 2.0, 3.0), (6.0, 6.0, 7.0)).grid.shape
            (2, 1, 2)
        """
        low, high = (np.asarray(corner, dtype=np.float64) for corner in (low_mm, high_mm))
        corners = np.array(list(product(*zip(low.tolist(), high.tolist(), strict=True))))
        index_vox, shape = self.grid.ras_to_index(corners), self.grid.shape
        start = np.floor(index_vox.min(0) + 0.5 + 1e-6).clip(min=0).astype(int)
        stop = np.ceil(index_vox.max(0) + 0.5 - 1e-6).clip(max=shape).astype(int)
        if not (low < high).all() or (start >= stop).any():
            raise InputError(
                f"no latent cell lies between {low.tolist()} and {high.tolist()} mm; the latent "
                f"fills {self.grid.bounds_mm.round(1).tolist()}."
            )
        i, j, k = (slice(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True))
        mean, log_var = self.mean[:, i, j, k], self.log_var[:, i, j, k]
        grid = self.grid.crop(start.tolist(), (stop - start).tolist())
        return replace(self, mean=mean, log_var=log_var, grid=grid)

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write a .safetensors file and return its path; one that exists needs `force`.

        Raises:
            InputError: Missing folder, or an existing file without `force`.

        Example:
            >>> cells, numbers = Grid.from_spacing((6, 6, 6), 4.0), torch.zeros(8, 6, 6, 6)
            >>> latent = Latent(numbers, numbers, cells, cells, Intensity(0.0, 100.0))
            >>> from tempfile import TemporaryDirectory
            >>> with TemporaryDirectory() as folder:
            ...     back = Latent.load(latent.save(f"{folder}/head.safetensors"))
            >>> back.grid == latent.grid, torch.equal(back.mean, latent.mean)
            (True, True)
        """
        facts = {
            "grid": grid_to_json(self.grid),
            "native": grid_to_json(self.native),
            "intensity": [self.intensity.low, self.intensity.high],
            "source": _source_to_json(self.source),
            "weights_id": self.weights_id,
        }
        tensors = {"mean": self.mean, "log_var": self.log_var}
        if self.missing is not None:
            tensors["missing"] = torch.from_numpy(np.packbits(self.missing.numpy()))
        meta = {"format": str(LATENT), "facts": json.dumps(facts)}
        return write_tensors(path, tensors, meta, force)

    @classmethod
    def load(cls, path: str | Path) -> Latent:
        """Read what `save` wrote.

        The source comes back as a NIfTI file of the same orientation, qform, sform and units.

        Raises:
            InputError: Missing, unreadable, or not a latent of this project.

        Example:
            >>> Latent.load("absent")
            Traceback (most recent call last):
            medil.errors.InputError: absent is not a file; make a latent with `medil encode`.
        """
        if not Path(path).is_file():
            raise InputError(f"{path} is not a file; make a latent with `medil encode`.")
        tensors, meta = read_tensors(path)
        if not LATENT.reads(meta.get("format"), path):
            raise InputError(f"{path} is not a latent; make one with `medil encode`.")
        try:
            facts = parsed(meta["facts"])
            native = grid_from_json(facts["native"])
            return cls(
                tensors["mean"],
                tensors["log_var"],
                grid_from_json(facts["grid"]),
                native,
                Intensity(*facts["intensity"]),
                _source_from_json(facts["source"]),
                facts["weights_id"],
                _unpacked(tensors["missing"], native) if "missing" in tensors else None,
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged: its metadata cannot be read.") from error


def _unpacked(bits: Tensor, grid: Grid) -> Tensor:
    """[D, H, W] bool from the bytes that hold it."""
    if bits.numel() != -(-grid.n_voxels // 8):
        raise ValueError("its missing voxels are not those of its grid")
    flat = np.unpackbits(bits.numpy(), count=grid.n_voxels)
    return torch.from_numpy(flat.astype(bool).reshape(grid.shape))


def grid_to_json(grid: Grid) -> dict[str, Any]:
    """A grid as JSON-able values."""
    return {"shape": list(grid.shape), "affine_vox2ras": grid.affine_vox2ras.tolist()}


def grid_from_json(raw: dict[str, Any]) -> Grid:
    """The grid in a dictionary that holds what `grid_to_json` gave.

    Raises:
        ValueError: A size that is no whole number of voxels, or another fault of `Grid`.
    """
    if not all(type(n) is int and 0 < n < 2**31 for n in raw["shape"]):
        raise ValueError(f"a grid has whole sizes, not {raw['shape']}")
    return Grid(tuple(raw["shape"]), np.array(raw["affine_vox2ras"]))


def _source_to_json(source: Source | None) -> dict[str, Any] | None:
    if source is None:
        return None
    if source.codes is not None:
        fields = place_to_json(source)
        return {"grid": grid_to_json(source.grid), "kind": source.kind, "place": fields}
    return {"grid": grid_to_json(source.grid), "codes": (1, 1), "time_unit": source.units[1]}


def _source_from_json(raw: dict[str, Any] | None) -> Source | None:
    if raw is None:
        return None
    grid, header = grid_from_json(raw["grid"]), nib.Nifti1Header()
    if "place" in raw:
        return place_from_json(raw["kind"], grid, raw["place"])
    header.set_data_shape(grid.shape)
    q_code = raw["codes"][0] if is_rigid(grid.affine_vox2ras) else 0  # a qform holds no shear
    header.set_qform(grid.affine_vox2ras, code=q_code)
    header.set_sform(grid.affine_vox2ras, code=raw["codes"][1])
    header.set_xyzt_units("mm", raw["time_unit"])  # a Grid is in mm whatever the file's unit was
    return Source("nifti1", grid, np.dtype(np.float32), header)
