"""Any autoencoder as the tables see it: what it keeps of a volume, and what it renders.

To put another model into the tables, write a `Coder`: a name, what was chosen, `encode` a
volume on its own grid, `decode` on any grid. `eval.coders.monai` does it for MONAI's
`AutoencoderKL`, `CodecCoder` below for a linear codec. Then

    medil evaluate scans/ -o report/ --coder mine.py:make

where ``make()`` in ``mine.py`` gives one coder or a list of them.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from eval import rows
from eval.coders import neighbours
from eval.subjects import INTERPOLATED
from medil.config import PRESETS
from medil.errors import InputError
from medil.grid import Grid
from medil.model.autoencoder import MedIL
from medil.model.codecs import CODECS, LINEAR_CODECS
from medil.model.weights import load_model, load_release, weights_sha256
from medil.regrid import resample
from medil.volume import Volume

MEDIL, DEFAULT = "medil", "tiny"  # the arm of the release that comes first, and that release
SPLINES = "_splines"  # ends the arm of a release whose network is left out
TITLES = {
    "cubic": "Averaged, then cubic splines",
    "dct_cube": "DCT, lowest cube",
    "dct_ball": "DCT, lowest ball",
    "bspline": "B-spline, least squares",
    neighbours.NAME: "B-spline, decoder sees neighbours",
    "dct_best": "DCT, largest (oracle)",
    "interpolation": "Cubic interpolation of every voxel",
    "scan": "The scan itself",
}
LINEAR = (*LINEAR_CODECS, neighbours.NAME)  # arms that are linear codes: the bar of every table
SUFFIX = ".safetensors"  # of weights in a file
T = TypeVar("T")
KINDS = ("learned", "network left out", "linear codec", "oracle, not a rival", "no compression")


@dataclass(frozen=True)
class Kept:
    """What an arm keeps of a volume: a latent or rebuilt voxels, and how many numbers."""

    what: Any
    numbers: int


class Coder(ABC):
    """One way to keep a volume, and to render what was kept on any grid.

    Coders travel between processes, so they hold names and settings; weights are loaded
    where they are needed.

    Attributes:
        name: As in the rows: lower case, no spaces.
        title: For people.
        kind: One of `KINDS`.
        config: Everything that was chosen, as JSON can hold it; its digest is in the rows.
        weights_sha256: Of the weights, if there are any.
        conditions: Of `eval.subjects.CONDITIONS`, where it is a rival; None: everywhere.
    """

    name: str
    title: str
    kind: str = "learned"
    config: Any = None
    weights_sha256: str = rows.NO_WEIGHTS
    conditions: tuple[str, ...] | None = None

    @property
    def encoding(self) -> str:
        """Coders of one encoding share what they keep, so a volume is encoded once for all."""
        return self.name

    @abstractmethod
    def encode(self, volume: Volume) -> Kept:
        """Keep a volume on its native grid: what `decode` needs, and the count of numbers in it.

        Grid and intensity scale, which a header holds, count for no one.
        """

    @abstractmethod
    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """Render what was kept on any grid over the volume's box: finer, coarser, shifted.

        [D, H, W] float64 in the volume's intensity unit; a voxel is the mean over its cell.
        """

    def config_hash(self, definition: Any) -> str:
        """Digest of what was chosen, here and in how it is scored."""
        return rows.digest([self.name, self.config, definition])

    def measurement(
        self, experiment: str, subject: str, data_sha256: str, condition: str, definition: Any
    ) -> rows.Measurement:
        """What an experiment measures of this arm on a subject, scored by a definition."""
        hashes = self.config_hash(definition), data_sha256, self.weights_sha256
        return rows.Measurement(experiment, subject, self.name, condition, *hashes)


class Renderer:
    """Renders volumes by coders; coders of one encoding encode a volume once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], tuple[Volume, Kept, float]] = {}

    def render(
        self, coder: Coder, volume: Volume, target: Grid
    ) -> tuple[np.ndarray, rows.Sampling, float]:
        """[D, H, W] float64 on the target, what it was made of, and the seconds it took."""
        key = (coder.encoding, id(volume))  # the volume is held, so that its id stays its own
        if key not in self._kept:
            self._kept[key] = volume, *timed(coder.encode, volume)
        _, kept, encode_s = self._kept[key]
        data, decode_s = timed(coder.decode, kept, target)
        return data, rows.Sampling.of(volume.grid, target, kept.numbers), encode_s + decode_s


def timed(function: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    """The result of a function, and the seconds it took."""
    started = time.perf_counter()
    return function(*arguments), time.perf_counter() - started


# Learned


@lru_cache(maxsize=2)
def loaded(release: str) -> MedIL:
    """A released model by name, or weights by path, ready to run on the CPU.

    Raises:
        InputError: No such weights, or those of a rival, which encodes no whole volumes.
    """
    model = load_model(Path(release)) if release.endswith(SUFFIX) else load_release(release)
    if not isinstance(model, MedIL):
        name = model.config.architecture
        raise InputError(f"{release} holds weights of the rival {name!r}; name those of a MedIL.")
    return model.eval()


def release_arm(release: str) -> str:
    """The arm of a release, or of weights in a file, which never has that of a release.

    Example:
        >>> [release_arm(name) for name in ("tiny", "base", "runs/3 mm/weights.safetensors")]
        ['medil', 'medil_base', 'medil_3_mm']
    """
    if not release.endswith(SUFFIX):
        return MEDIL if release == DEFAULT else f"{MEDIL}_{release}"
    path = Path(release).absolute()
    name = path.stem if path.stem != "weights" else path.parent.name  # as `medil train` calls it
    name = re.sub("[^a-z0-9]+", "_", name.lower()).strip("_")
    taken = not name or name in PRESETS or f"_{name}".endswith(SPLINES)
    return f"{MEDIL}_{name}_weights" if taken else f"{MEDIL}_{name}"


def models(arms: Iterable[str]) -> list[str]:
    """Those arms that are MedIL with its network, the first release first."""
    names = {a for a in arms if f"{a}_".startswith(f"{MEDIL}_") and not a.endswith(SPLINES)}
    return sorted(names, key=lambda arm: (arm != MEDIL, arm))


def title_of(arm: str) -> str:
    """An arm for people: of any release, or of `TITLES`; another arm keeps its name."""
    if not models([arm.removesuffix(SPLINES)]):
        return TITLES.get(arm, arm)
    name = arm.removesuffix(SPLINES).removeprefix(MEDIL).removeprefix("_") or DEFAULT
    return f"MedIL {name}" + (", splines alone" if arm.endswith(SPLINES) else "")


def kind_of(arm: str) -> str:
    """One of `KINDS`; ``other`` for an arm that is neither a release nor in `TITLES`."""
    if models([arm.removesuffix(SPLINES)]):
        return "network left out" if arm.endswith(SPLINES) else "learned"
    if arm in (*LINEAR, *CODECS):
        return "linear codec" if arm in LINEAR else "oracle, not a rival"
    return "no compression" if arm in TITLES else "other"


class ReleaseCoder(Coder):
    """A released MedIL, or weights in a file; with or without its network.

    Args:
        release: Name of a release, or path of a ``.safetensors`` file.
        splines_alone: Render the closed form and leave the network out.
    """

    def __init__(self, release: str = "tiny", splines_alone: bool = False) -> None:
        model = loaded(release)
        if splines_alone and not model.config.closed_form:
            raise InputError("these weights have no closed form that could be rendered alone.")
        self.release, self.splines_alone = release, splines_alone
        self.name = release_arm(release) + (SPLINES if splines_alone else "")
        self.title, self.kind = title_of(self.name), kind_of(self.name)
        self.config = asdict(model.config)
        self.weights_sha256 = weights_sha256(model)

    @property
    def encoding(self) -> str:
        """With and without network, the latent is one."""
        return f"latent of {self.release}"

    def encode(self, volume: Volume) -> Kept:
        """The latent: its mean, nothing drawn."""
        latent = loaded(self.release).encode(volume)
        return Kept(latent, latent.n_numbers)

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The rendering on any grid, the same on any processor; [D, H, W] float64."""
        field = loaded(self.release).field(kept.what, self.splines_alone, precision="float32")
        return field.on(grid).data.double().numpy()


# Nothing learned


class _Voxels(Coder):
    """Keeps voxels on the volume's own grid, as they are or as a code rebuilds them."""

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """Cubic splines through the voxels; [D, H, W] float64."""
        samples, own_grid = kept.what
        return resample(samples, own_grid, grid)


class CodecCoder(_Voxels):
    """A codec of `medil.model.codecs` with as many numbers as a latent of this pitch and width."""

    def __init__(self, codec: str, latent_spacing_mm: float, channels: int) -> None:
        if codec not in CODECS:
            raise InputError(f"there is no codec {codec!r}; choose from {', '.join(CODECS)}.")
        self.codec, self.name = codec, codec  # another size than usual may have another name
        self.title, self.kind = TITLES[codec], kind_of(codec)
        self.latent_spacing_mm, self.channels = latent_spacing_mm, channels
        self.config = {"latent_spacing_mm": latent_spacing_mm, "latent_channels": channels}

    def encode(self, volume: Volume) -> Kept:
        """The volume as those numbers rebuild it on its own grid."""
        n_numbers = latent_numbers(volume.grid, self.latent_spacing_mm, self.channels)
        coded = CODECS[self.codec](_numbers(volume), volume.grid, n_numbers)
        return Kept((coded.reconstruction, volume.grid), coded.numbers_kept)


class NeighboursCoder(Coder):
    """The linear code of `eval.coders.neighbours`, of the one latent size that it is fitted for."""

    name, title, kind = neighbours.NAME, TITLES[neighbours.NAME], "linear codec"

    def __init__(self) -> None:
        names = "latent_spacing_mm", "latent_channels"
        self.config = dict(zip(names, neighbours.SIZE, strict=True))
        self.config |= {"roughness": neighbours.ROUGHNESS}
        self.weights_sha256 = neighbours.fitted_sha256()

    def encode(self, volume: Volume) -> Kept:
        """The least-squares splines, and the latent cells over them."""
        cells = neighbours.cells_of(volume.grid)
        kept = neighbours.coefficients(_numbers(volume), volume.grid, cells)
        return Kept((kept, cells), kept.numel())

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        """The rendering on any grid; [D, H, W] float64."""
        latent, cells = kept.what
        return neighbours.render(latent, cells, neighbours.fitted(), grid)


class Interpolation(_Voxels):
    """Cubic interpolation of every voxel: no compression, a rival where detail is missing."""

    name, title, kind = "interpolation", TITLES["interpolation"], "no compression"
    conditions = INTERPOLATED

    def encode(self, volume: Volume) -> Kept:
        """Every voxel."""
        return Kept((_numbers(volume), volume.grid), volume.grid.n_voxels)


class Scan(Interpolation):
    """The scan itself, on its own grid: what the count of its pieces and handles should be."""

    name, title = "scan", TITLES["scan"]
    conditions = ("native -> native",)


def latent_numbers(grid: Grid, spacing_mm: float, channels: int) -> int:
    """How many numbers a latent of this pitch and width keeps of a volume."""
    return channels * grid.covering(spacing_mm).n_voxels


def _numbers(volume: Volume) -> np.ndarray:
    return volume.data.double().numpy()


# Which


def release_coders(release: str = "tiny") -> list[Coder]:
    """The release and, where it has one, its closed form without the network."""
    closed = loaded(release).config.closed_form
    return [ReleaseCoder(release), *([ReleaseCoder(release, splines_alone=True)] if closed else [])]


def codec_coders(
    latent_spacing_mm: float, channels: int, names: Sequence[str] = (*CODECS, neighbours.NAME)
) -> list[Coder]:
    """Codes without a network with as many numbers as a latent of this pitch and width.

    `neighbours` is left out where the latent's size is not the one that it is fitted for.
    """
    size = latent_spacing_mm, channels
    found = [name for name in names if name != neighbours.NAME or size == neighbours.SIZE]
    return [NeighboursCoder() if n == neighbours.NAME else CodecCoder(n, *size) for n in found]


def linear_coders(release: str = "tiny") -> list[Coder]:
    """Every code without a network that keeps as many numbers as a release's latent."""
    config = loaded(release).config
    return codec_coders(config.latent_spacing_mm, config.latent_channels)


def all_coders(release: str = "tiny") -> list[Coder]:
    """Every arm that is compared with a release."""
    return [*release_coders(release), *linear_coders(release), Interpolation(), Scan()]


def coders_from(text: str) -> list[Coder]:
    """A user's own coders, as after ``--coder``: ``FILE.py:NAME`` gives one or a list of them.

    Raises:
        InputError: No such file or name, or it gives something else.
    """
    path, _, name = text.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise InputError(f"--coder wants FILE.py:NAME with a file that exists, not {text!r}.")
    try:
        made = getattr(_imported(Path(path)), name)()
    except Exception as error:
        raise InputError(
            f"{Path(path).name} gives no coder: {type(error).__name__}: {error}"
        ) from error
    coders = list(made) if isinstance(made, Sequence) else [made]
    if not coders or not all(isinstance(coder, Coder) for coder in coders):
        raise InputError(f"{name} in {Path(path).name} must give eval.coders.base.Coder objects.")
    return coders


def _imported(path: Path) -> ModuleType:
    """A user's module, whose classes travel to other processes with their code."""
    spec = importlib.util.spec_from_file_location(f"coder_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    if importlib.util.find_spec("cloudpickle"):
        import cloudpickle

        cloudpickle.register_pickle_by_value(module)
    return module
