"""What is compared, in HU: the scan itself, releases and tries, linear codecs of equal size."""

from __future__ import annotations

from pathlib import Path

from eval.arms.catalogue import TRUNK
from eval.arms.coders import WeightsCoder, run_coder
from eval.coders.base import Coder, Scan, codec_coders, release_arm
from eval.thin_structures.chests import FOLDER, WINDOW_HU
from eval.thin_structures.train import TRIES, Run
from medil.data.releases import RELEASES, release_path
from medil.volume import Intensity

CHEST, HEADS = "chest-tiny", "tiny"  # releases
CODECS = ("dct_ball", "bspline")
SCAN = "scan"
SIZE = TRUNK.latent_spacing_mm, TRUNK.latent_channels


def in_window(coder: WeightsCoder) -> WeightsCoder:
    """A coder whose window is part of what was chosen."""
    coder.config |= {"window_hu": [coder.scale.low, coder.scale.high]}
    return coder


def release_coder(name: str, window_hu: tuple[float, float] = WINDOW_HU) -> WeightsCoder:
    """A release, in the window of its training unless another is named."""
    about = release_path(name), release_arm(name), f"MedIL {name}"
    return in_window(WeightsCoder(*about, Intensity(*window_hu)))


def released() -> list[str]:
    """The releases that are compared: that of chests where it is in the checkout, that of heads."""
    return [n for n in (CHEST, HEADS) if (RELEASES / f"{n}.safetensors").exists()]


def fixed_coders() -> list[Coder]:
    """What learns nothing: the scan, and codecs that keep as many numbers as the latents."""
    return [Scan(), *codec_coders(*SIZE, CODECS)]


def try_coder(run: Run, folder: Path = FOLDER) -> WeightsCoder:
    """A trained try."""
    return in_window(run_coder(run, folder, TRIES[run.name].title, Intensity(*WINDOW_HU)))
