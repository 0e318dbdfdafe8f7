"""`medil doctor`: what is here, whether the core works, what is missing and what to type."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click

from medil import __version__
from medil.errors import InputError, printable
from medil.system.memory import GB, free_memory_bytes

CORE = ("torch", "numpy", "scipy", "nibabel", "safetensors", "psutil", "tqdm")
EXTRAS = {  # extra: what it is for, and the modules that it brings
    "nrrd": ("NRRD files", ("nrrd",)),
    "dicom": ("DICOM series", ("pydicom", "imagecodecs")),
    "data": ("published data", ("filelock", "nilearn", "pooch")),
    "plots": ("figures", ("matplotlib",)),
    "dask": ("several machines", ("distributed",)),
    "eval": ("the evaluation", ("distributed", "pandas", "skimage")),
    "train": ("training", ("lightning_fabric", "tensorboardX")),
    "rivals": ("other autoencoders", ("monai",)),
    "sample": ("medil sample", ("einops", "monai")),
    "store": ("medil store", ("zarr",)),
    "preprocess": ("medil preprocess", ("deepbet", "nilearn", "SimpleITK")),
    "fuzz": ("make fuzz", ("atheris",)),
    "perceptual": ("LPIPS", ("lpips", "torchvision")),
    "notebooks": ("notebooks", ("itables", "myst_nb")),
    "book": ("the book", ("axe_core_python", "doit", "ipykernel", "jupyter_book", "papermill")),
}
Fact = tuple[str, str]  # name and text


@click.command(epilog="Example: medil doctor")
def doctor() -> None:
    """Say what is installed, where data are looked for, and what is missing.

    Prints versions, device, threads, precision, memory, cache and mirror, and what to type for
    each missing extra. Encodes and renders a small object with the released model at the end:
    the exit code is 0 when that works, and 2 otherwise. It downloads nothing.
    """
    for look in (_versions, _machine, _places, _extras):
        try:
            for name, text in look():
                _say(name, text)
        except ImportError as error:  # of the core, which is tried below
            _say("missing", str(error))
    _say("core", check_core())


def _say(name: str, text: str) -> None:
    click.echo(f"{name:<12} {printable(text)}")


def _versions() -> Iterator[Fact]:
    from medil.system.checkout import commit

    at = f" at commit {commit()}" if commit() else ""
    yield "medil", f"{__version__}{at}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in CORE)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _machine() -> Iterator[Fact]:
    import psutil
    import torch

    from medil.system.device import find_device, has_bfloat16

    device = find_device()
    is_cuda = device.type == "cuda"
    yield "device", torch.cuda.get_device_name() if is_cuda else "cpu"
    yield "threads", f"{torch.get_num_threads()} of torch, {os.cpu_count()} processors"
    yield "precision", "bfloat16" if is_cuda or has_bfloat16() else "float32"
    total = psutil.virtual_memory().total
    yield "memory", f"{free_memory_bytes() / GB:.1f} GB free of {total / GB:.1f} GB"


def _places() -> Iterator[Fact]:
    from medil.data.folders import cache_folder, mirror_folder

    yield "cache", f"{cache_folder()}: {_room(cache_folder())}"
    mirror = mirror_folder()
    if mirror is None:
        yield "mirror", "none; MEDIL_DATA_MIRROR can name a folder of published files"
    else:
        yield "mirror", f"{mirror}: {'a folder' if mirror.is_dir() else 'is not there'}"


def _room(folder: Path) -> str:
    """How much a folder, which may not be there yet, can take."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    if not os.access(there, os.W_OK):
        return "may not be written to; set MEDIL_CACHE to a folder that may"
    return f"{shutil.disk_usage(there).free / GB:.1f} GB free"


def _extras() -> Iterator[Fact]:
    for extra, (purpose, modules) in EXTRAS.items():
        if missing := [name for name in modules if find_spec(name) is None]:
            hint = f"pip install 'medil-book[{extra}]'"
            yield "optional", f"{purpose} needs {', '.join(missing)}: {hint}"


def check_core() -> str:
    """Encode a small object with the released model, and render it finer; a word on the result.

    Raises:
        InputError: It does not work; says why.
    """
    try:
        from medil.model.weights import load_release
        from medil.synth.phantoms import PHANTOMS, render
        from medil.volume import Volume

        ball = PHANTOMS["ball"]()
        grid = ball.grid(8.0)
        model = load_release("tiny")
        rendered = model.decode(model.encode(Volume(render(ball, grid, 1), grid)), grid)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".rstrip(".")
        raise InputError(f"the core does not work here ({reason}); install medil again.") from error
    if not bool(rendered.data.isfinite().all()):
        raise InputError("the core does not work here: it renders NaN; install torch again.")
    return "works: a ball was encoded and rendered with the release tiny"
