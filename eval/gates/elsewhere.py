"""Run downloaded notebooks where nothing of the project is: an empty folder, a bare environment.

    python -m eval.gates.elsewhere             # every notebook
    python -m eval.gates.elsewhere 00 02       # these

builds the wheel and an archive of the repository, makes a virtual environment that shares every
installed package but this project, without an index, and runs each notebook as it is downloaded.
Its first cell must find the wheel and the archive, and leave torch as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import medil
from medil.cli.book import choose

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
OWN = ("medil_book", "_medil_book", "__editable__")  # what this project puts among packages
KEPT = """from importlib.metadata import distribution
for name in ("torch", "torchvision", "numpy"):
    print(name, distribution(name).version, distribution(name).locate_file(name))"""
UNSET = ("PYTHONPATH", "MEDIL_REPOSITORY_URL", "MEDIL_COMMIT", "PIP_CONFIG_FILE", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Elsewhere:
    """A computer without the project, as far as one folder can be one."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of the bare environment."""
        return self.folder / "venv/bin/python"

    def environment(self) -> dict[str, str]:
        """Where the wheel and the archive are; nothing of this checkout."""
        own = {name: value for name, value in os.environ.items() if name not in UNSET}
        return own | {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder / "dist"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "MEDIL_DATA_MIRROR": str(self.folder / "mirror"),
            "MEDIL_CACHE": str(self.folder / "cache"),
            "PYTHONNOUSERSITE": "1",
            "PATH": os.pathsep.join([str(self.python.parent), os.environ["PATH"]]),
        }

    def run(self, arguments: Sequence[str], place: Path) -> subprocess.CompletedProcess:
        """Run the bare environment's Python in a folder."""
        return subprocess.run(
            [str(self.python), *arguments], cwd=place, env=self.environment(),
            capture_output=True, text=True,
        )  # fmt: skip


def prepare(folder: Path) -> Elsewhere:
    """Build the wheel, the archive and the bare environment in a folder."""
    place = bare(folder)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    packed = folder / f"mirror/medil-book-{medil.__version__}.tar.gz"
    changed = git("stash", "create")  # a commit of what is tracked and was changed; or nothing
    git("archive", "--prefix", "medil/", "-o", str(packed), changed or "HEAD")
    return place


def bare(folder: Path) -> Elsewhere:
    """An environment with every installed package but this project, and empty folders."""
    for name in ("dist", "mirror", "pages"):
        (folder / name).mkdir()
    venv.create(folder / "venv", symlinks=True)
    share_packages(Path(sysconfig.get_path("purelib")), folder)
    return Elsewhere(folder)


def share_packages(packages: Path, folder: Path) -> None:
    """Show a bare environment every installed package but this project."""
    shared = folder / "packages"
    shared.mkdir()
    for path in packages.iterdir():
        if not path.name.startswith(OWN) and path.suffix != ".pth":
            (shared / path.name).symlink_to(path)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(f"{shared}\n", "utf-8")


def git(*arguments: str) -> str:
    """What git says in the checkout."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def findings(place: Elsewhere, notebooks: Sequence[Path]) -> Iterator[str]:
    """Run notebooks one after the other, in an empty folder each; what failed, in one line each."""
    from eval.pages.plain import plain, words_of

    words = words_of(ROOT, ROOT / "_build/tables")
    if place.run(["-c", "import medil"], place.folder).returncode == 0:
        yield "the bare environment already has medil: nothing was tried"
        return
    before = place.run(["-c", KEPT], place.folder).stdout
    for notebook in notebooks:
        folder, start = place.folder / "pages" / notebook.stem, time.perf_counter()
        folder.mkdir()
        page = plain(json.loads(notebook.read_text("utf-8")), words)
        (folder / notebook.name).write_text(json.dumps(page), "utf-8")
        call = ["-m", "papermill", notebook.name, "executed.ipynb", "-k", "python3"]
        ran = place.run([*call, "--no-progress-bar"], folder)
        said = ran.stderr.strip().splitlines()[-1:] if ran.returncode else ["runs"]
        print(f"{notebook.stem}: {time.perf_counter() - start:.0f} s, {said[0]}", flush=True)
        if ran.returncode:
            yield f"{notebook.stem}: {ran.stderr[-3000:]}"
    if (after := place.run(["-c", KEPT], place.folder).stdout) != before:
        yield f"before: {before}after: {after}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print findings; 1 if there are any, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m eval.gates.elsewhere", description=__doc__)
    parser.add_argument("numbers", nargs="*", help="numbers of notebooks; all of them without any")
    numbers = parser.parse_args(arguments).numbers
    chosen = choose(",".join(numbers), (path.stem for path in NOTEBOOKS))
    wanted = [path for path in NOTEBOOKS if path.stem in chosen or not chosen]
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder:
        found = list(findings(prepare(Path(folder)), wanted))
    print("\n".join(found) or f"{len(wanted)} notebooks run elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
