"""The rest of the repository for an installed package: its public address, and its archive.

A notebook that was downloaded, or opened in Colab, needs the evaluation (`eval`), its recorded
rows and the larger weights. `use_repository` takes them from the checkout, or from an archive of
the same version: a local one in `MEDIL_DATA_MIRROR`, or the one at the public address.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from pathlib import Path

import medil
from medil.data.fetch import download
from medil.data.folders import repository_folder, unpacked_folder
from medil.data.manifest import cache_path, local_path
from medil.data.schema import PublishedFile
from medil.errors import InputError
from medil.system.files import PART

ADDRESS = ""  # https://HOST/OWNER/NAME, once there is one; empty: pages have no launch buttons


def address() -> str:
    """The public address of the repository: `MEDIL_REPOSITORY_URL`, or the one written here."""
    return os.environ.get("MEDIL_REPOSITORY_URL", ADDRESS).rstrip("/")


def use_repository() -> Path:
    """Make `eval` importable, and return the folder of the repository.

    Raises:
        InputError: There is no checkout, and the archive is not here and has no address.
    """
    folder = repository_folder() or unpack(archive())
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder


def archive() -> Path:
    """The archive of this version of the repository: from the mirror, the cache, or its address.

    Raises:
        InputError: No copy and no address, or no network.
    """
    name, url = f"medil-book-{medil.__version__}.tar.gz", ""
    if address():
        url = f"{address()}/archive/refs/tags/v{medil.__version__}.tar.gz"
    file = PublishedFile(path=name, url=url, sha256="", bytes=0, licence="Apache-2.0")
    if found := local_path(file):
        return found
    if not url:
        raise InputError(
            "the installed package has no evaluation suite, and the repository has no public "
            f"address yet; put {name} into the folder that MEDIL_DATA_MIRROR names, or run the "
            "notebook in a checkout."
        )
    return download(file, cache_path(file))


def unpack(path: Path) -> Path:
    """Unpack an archive of the repository into the cache, all of it or nothing; its folder.

    Raises:
        InputError: It is no archive, or it holds something else.
    """
    target = unpacked_folder()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PART, dir=target.parent) as part:
        try:
            with tarfile.open(path) as packed:
                packed.extractall(part, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{path} cannot be unpacked: {error}.") from error
        found = [top for top in Path(part).iterdir() if (top / "eval/rows.py").is_file()]
        if not found:
            raise InputError(f"{path} holds no copy of the repository; delete it and try again.")
        if not target.exists():  # another process may have been faster
            os.rename(found[0], target)
    return target
