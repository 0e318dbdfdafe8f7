"""Inputs that reached something new in earlier runs: where the next one, and tests, begin.

They lie in one packed file, by the name of their target.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from medil.system.files import atomic_output

CORPUS = Path(__file__).parent / "corpus.tar.xz"
MOST = 60  # inputs of a target


def read_corpus(path: Path = CORPUS) -> dict[str, list[bytes]]:
    """The inputs of each target; none where there is no file."""
    found: dict[str, list[bytes]] = {}
    if not path.is_file():
        return found
    with tarfile.open(path) as packed:
        for member in packed:
            content = packed.extractfile(member)
            assert content is not None
            found.setdefault(member.name.partition("/")[0], []).append(content.read())
    return found


def write_corpus(inputs: Mapping[str, Sequence[bytes]], path: Path = CORPUS) -> Path:
    """Pack at most `MOST` inputs of each target, spread over the order of their discovery."""
    with atomic_output(path, force=True) as temporary, tarfile.open(temporary, "w:xz") as packed:
        for name, contents in sorted(inputs.items()):
            step = max(1, -(-len(contents) // MOST))
            for number, content in enumerate(contents[::step]):
                member = tarfile.TarInfo(f"{name}/{number:03d}")
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
    return path
