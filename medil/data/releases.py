"""Released weights and anatomies: from the package, a local mirror, the cache, or by download.

The wheel carries `tiny`, a checkout every release. `releases/manifest.toml`
holds the SHA-256 of each file, which is checked every time.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import medil
from medil.data.folders import repository_folder
from medil.data.manifest import available, fetch
from medil.data.repository import address
from medil.data.schema import PublishedFile
from medil.errors import InputError

KINDS = ("-ldm", "-appearance", "-segmenter")  # after the name of a preset; none: autoencoders
RELEASES = Path(__file__).parents[1] / "releases"


def releases() -> dict[str, PublishedFile]:
    """Every release by name (``tiny``, ``tiny-ldm``), in the order of the manifest.

    The `url` is empty while the repository has no public address (`medil.data.repository`).
    """
    table = tomllib.loads((RELEASES / "manifest.toml").read_text(encoding="utf-8"))
    repository = address()
    return {
        row["path"].split(".")[0]: PublishedFile(
            path=f"releases/{row['path']}",
            url=repository
            and table["url"].format(
                repository=repository, version=medil.__version__, file=row["path"]
            ),
            sha256=row["sha256"],
            bytes=row["bytes"],
            licence=table["licence"],
        )
        for row in table["file"]
    }


def release_path(name: str) -> Path:
    """Return a verified local copy of a released file; download it if there is none.

    It is looked for in the package, in the rest of the repository, in `MEDIL_DATA_MIRROR` (at the
    top or in ``releases/``) and in the cache. Weights are named by a preset, with ``-ldm`` for the
    latent diffusion model, ``-appearance`` for the one that is given a tissue map and
    ``-segmenter`` for the tissue segmenter; ``anatomies`` are the packed tissue maps.

    Raises:
        InputError: No such release, other bytes than published, or no copy and no address.

    Example:
        >>> release_path("tiny").name
        'tiny.safetensors'
    """
    known = releases()
    if name not in known:
        alike = ", ".join(n for n in known if _kind(n) == _kind(name))
        others = f"; there is: {alike}" if alike else ""
        raise InputError(f"the release {name!r} has not been trained yet{others}.")
    published = known[name]
    file = Path(published.path).name
    nearby = [RELEASES / file]
    if repository := repository_folder():
        nearby.append(repository / "medil/releases" / file)
    if mirror := os.environ.get("MEDIL_DATA_MIRROR"):
        nearby.append(Path(mirror) / file)
    if not (published.url or available(published, nearby)):
        raise InputError(
            f"the installed package does not carry the release {name!r}; set MEDIL_DATA_MIRROR "
            "to the folder medil/releases of a checkout, or MEDIL_REPOSITORY_URL to the address "
            "of the repository."
        )
    return fetch(published, nearby)


def _kind(name: str) -> str:
    """What follows the name of the preset; a release without one is of its own kind."""
    return name if name == "anatomies" else next((k for k in KINDS if name.endswith(k)), "")
