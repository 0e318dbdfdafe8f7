"""LPIPS (Zhang et al. 2018): its trained trunk, checked, and the network built from it.

The trunk is torchvision's AlexNet. It comes from the mirror or the cache as safetensors, or from
its published address, a file in PyTorch's format; the numbers are read from that file without
unpickling it, and must be the published ones. The linear heads come with the package lpips.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medil.data.fetch import download
from medil.data.manifest import available, cache_path, fetch
from medil.data.schema import PublishedFile
from medil.errors import InputError, needs
from medil.system.files import atomic_output

if TYPE_CHECKING:
    from torch import Tensor, nn

LICENCE = "BSD-3-Clause (torchvision)"
ADDRESS = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
PUBLISHED = PublishedFile(  # its hash is not known; its numbers are, see NUMBERS_SHA256
    "lpips/alexnet-owt-7be5be79.pth", ADDRESS, "", 0, LICENCE
)
TRUNK = PublishedFile(
    "lpips/alexnet_features.safetensors",
    ADDRESS,  # of the whole network, from which the trunk is taken
    "9f97fd313f4da83dbe6bbfbe6effca1241de9edfcd7c53386261ed9697286dd9",
    9_879_632,
    LICENCE,
)
SHAPES = {  # of the five convolutions, in the order of the published file
    "features.0.weight": (64, 3, 11, 11),
    "features.0.bias": (64,),
    "features.3.weight": (192, 64, 5, 5),
    "features.3.bias": (192,),
    "features.6.weight": (384, 192, 3, 3),
    "features.6.bias": (384,),
    "features.8.weight": (256, 384, 3, 3),
    "features.8.bias": (256,),
    "features.10.weight": (256, 256, 3, 3),
    "features.10.bias": (256,),
}
NUMBERS_SHA256 = (  # of all numbers, in that order, little-endian float32
    "2b566cc3a4d6f0a7343701af22f461f1ac3dcd03a3ac28cce10968a1d3c85fdc"
)
LPIPS_NAMES = {"0": "slice1", "3": "slice2", "6": "slice3", "8": "slice4", "10": "slice5"}
_LIBRARIES: list[Any] = []  # kept alive: operators vanish with their library


@lru_cache(maxsize=1)
def alexnet_lpips() -> nn.Module:
    """AlexNet's LPIPS, version 0.1, frozen: [B, 3, h, w] pairs in -1 ... 1 to [B, 1, 1, 1].

    Raises:
        InputError: A package is missing, or the trunk is neither here nor can be downloaded.
    """
    import_torchvision()
    with needs("perceptual", "LPIPS needs lpips"):
        lpips = importlib.import_module("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips names torchvision's former arguments
        network: nn.Module = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = network.state_dict()
    for name, values in alexnet_trunk().items():
        _, layer, part = name.split(".")
        state[f"net.{LPIPS_NAMES[layer]}.{layer}.{part}"].copy_(values)
    return network.eval().requires_grad_(False)


def alexnet_trunk() -> dict[str, Tensor]:
    """The trunk by torchvision's names, from the mirror, the cache or its published address.

    Raises:
        InputError: No copy and no network, or a copy with other bytes.
    """
    from safetensors.torch import load_file

    if not available(TRUNK):
        _download()
    return load_file(fetch(TRUNK))


def _download() -> None:
    """Download torchvision's file and keep the trunk's numbers in the cache."""
    import torch
    from safetensors.torch import save_file

    target, published = cache_path(TRUNK), cache_path(PUBLISHED)
    try:
        download(PUBLISHED, published)
        tensors = {name: torch.from_numpy(v) for name, v in read_trunk(published).items()}
    finally:
        published.unlink(missing_ok=True)
    with atomic_output(target) as temporary:
        save_file(tensors, temporary)


def read_trunk(path: Path) -> dict[str, np.ndarray]:
    """The convolutions' numbers in a file in PyTorch's format, which is not unpickled.

    Such a file is a ZIP archive that holds each tensor's bytes as ``data/0``, ``data/1``, ...
    in the order in which they were saved.

    Raises:
        InputError: Another kind of file, or other numbers than the published ones.
    """
    digest, arrays = hashlib.sha256(), {}
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].split("/")[0]
            for index, (name, shape) in enumerate(SHAPES.items()):
                data = archive.read(f"{root}/data/{index}")
                arrays[name] = np.frombuffer(data, dtype="<f4").reshape(shape).copy()
                digest.update(data)
    except (zipfile.BadZipFile, KeyError, ValueError, IndexError) as error:
        raise InputError(f"{path.name} is not torchvision's file of AlexNet: {error}.") from error
    if digest.hexdigest() != NUMBERS_SHA256:
        raise InputError(f"{path.name} holds other numbers than AlexNet's published ones.")
    return arrays


def import_torchvision() -> None:
    """Import torchvision, also where its compiled part was built for CUDA and torch was not.

    Such a torchvision fails at its import, for want of two operators that LPIPS does not use;
    with their signatures declared it works.

    Raises:
        InputError: It is not installed.
    """
    import torch

    try:
        with needs("perceptual", "LPIPS needs torchvision"):
            importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        importlib.import_module("torchvision")
