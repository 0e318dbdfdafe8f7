"""MedIL: encode a volume at its native grid, render it on any grid.

`import medil` is enough for daily work and imports nothing heavy; names are resolved when
they are first used (PEP 562). Knowledge flows one way: grid -> data -> model -> train ->
eval -> notebooks -> book.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medil.config import preset as preset
    from medil.data.samples import real_scan as real_scan
    from medil.diffusion.anatomy_first import sample as sample
    from medil.errors import InputError as InputError
    from medil.grid import Grid as Grid
    from medil.latent import Latent as Latent
    from medil.model.autoencoder import MedIL as MedIL
    from medil.model.weights import load_model as load_model
    from medil.model.weights import load_release as load_release
    from medil.volume import Volume as Volume
    from medil.volume import load as load
    from medil.volume import save as save

__version__ = "1.0.0"

PUBLIC = {  # name -> the module that defines it
    "Grid": "grid",
    "InputError": "errors",
    "Latent": "latent",
    "MedIL": "model.autoencoder",
    "Volume": "volume",
    "load": "volume",
    "load_model": "model.weights",
    "load_release": "model.weights",
    "preset": "config",
    "real_scan": "data.samples",
    "sample": "diffusion.anatomy_first",
    "save": "volume",
}
MODULES = ("plots",)  # that are used by their own name
__all__ = [*PUBLIC, *MODULES]


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(f"medil.{PUBLIC[name]}"), name)
    if name in MODULES:
        return import_module(f"medil.{name}")
    raise AttributeError(f"module 'medil' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
