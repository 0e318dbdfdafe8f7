"""MONAI's `AutoencoderKL` in the same tables: an example of somebody else's model.

A network of this kind knows one voxel size and shapes that its strides divide. So the volume
is resampled to that size, padded, encoded; and what is decoded is resampled to the grid that
was asked for. Nothing of this is hidden from the scores.

A file for ``medil evaluate scans/ -o report/ --coder mine.py:make``:

    from eval.coders.monai import MonaiCoder

    def make():
        net = dict(spatial_dims=3, in_channels=1, out_channels=1, channels=(32, 64, 64),
                   num_res_blocks=(2, 2, 2), latent_channels=3, attention_levels=(False,) * 3)
        return MonaiCoder("monai_kl", net, "autoencoder.safetensors", working_mm=1.0)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from eval.coders.base import Coder, Kept
from medil.errors import InputError, needs
from medil.grid import Grid
from medil.regrid import resample
from medil.system.tensors import tensors_sha256
from medil.volume import Volume, robust_intensity


class MonaiCoder(Coder):
    """An `AutoencoderKL` and the fixed grid that it works on.

    Args:
        name: As in the rows.
        net: Arguments of `monai.networks.nets.AutoencoderKL`.
        weights: Its state, as ``.safetensors``.
        working_mm: The voxel size it was trained at, in mm.
        title: For people; made from the name when empty.

    Raises:
        InputError: MONAI is missing, or there is no such file.
    """

    def __init__(
        self, name: str, net: Mapping[str, Any], weights: str | Path, working_mm: float,
        title: str = "",
    ) -> None:  # fmt: skip
        self.weights = Path(weights).resolve()
        if not self.weights.is_file():
            raise InputError(f"there are no weights at {weights}; say where they are.")
        self.name, self.title = name, title or f"AutoencoderKL at {working_mm:g} mm"
        self.net, self.working_mm = dict(net), working_mm
        self.config = {"net": {k: repr(v) for k, v in self.net.items()}, "working_mm": working_mm}
        self.weights_sha256 = tensors_sha256(load_file(self.weights))

    @property
    def stride(self) -> int:
        """Working voxels to a latent cell along each axis: every level but the last halves."""
        return 2 ** (len(self.net["channels"]) - 1)

    @torch.inference_mode()
    def encode(self, volume: Volume) -> Kept:
        """Resample, pad to whole latent cells, encode; the latent's mean, nothing drawn."""
        intensity = robust_intensity(volume.data)
        x = intensity.forward(volume.data).double().numpy()
        box = volume.grid.covering(self.working_mm)
        shape = [-(-n // self.stride) * self.stride for n in box.shape]
        working = box.crop((0, 0, 0), shape)
        samples = resample(x, volume.grid, box)
        samples = np.pad(samples, [(0, m - n) for m, n in zip(shape, box.shape)], mode="edge")
        mean, _ = self._network().encode(torch.from_numpy(samples).float()[None, None])
        return Kept((mean, working, intensity), mean.numel())

    @torch.inference_mode()
    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """Decode, then resample: [D, H, W] float64 on `grid`."""
        mean, working, intensity = kept.what
        x = self._network().decode(mean)[0, 0]
        return resample(intensity.inverse(x).double().numpy(), working, grid)

    def _network(self) -> Any:
        frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in self.net.items()}
        return _loaded(self.weights, tuple(frozen.items()))


@lru_cache(maxsize=2)
def _loaded(path: Path, net: tuple[tuple[str, Any], ...]) -> nn.Module:
    with needs("rivals", "this coder is MONAI's"):
        from monai.networks.nets import AutoencoderKL
    model = AutoencoderKL(**dict(net))
    try:
        model.load_state_dict(load_file(path))
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(f"{path.name} does not fit the network that was described.") from error
    return model.eval()
