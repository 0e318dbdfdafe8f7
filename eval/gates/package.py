"""Install the package as others do, from its wheel and from its source archive, and try it.

    python -m eval.gates.package

builds both from the last commit, installs each in a bare environment without an index, and runs
the command line there, in an empty folder: what the wheel holds must work, and what it lacks must
be said in one sentence. `make dist` keeps both files in ``dist`` if nothing is found.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.gates.elsewhere import bare, git

MOST_BYTES = 10_000_000  # of a wheel: the code and the weights of `tiny`
TRIES: tuple[tuple[str, int], ...] = (  # a command, and its exit code
    ("doctor", 0),
    ("phantom ball -o ball.nii.gz --spacing 2 2 3", 0),
    ("info ball.nii.gz", 0),
    ("reconstruct ball.nii.gz -o again.nii.gz --spacing 2 2 2", 0),
    ("reconstruct nowhere.nii.gz -o again.nii.gz", 2),
    ("evaluate . -o report", 2),  # the evaluation is of the repository
    ("sample --n 1 --spacing 2 2 2 -o drawn", 2),  # so are the weights of the sampler
)


def build(out: Path) -> list[Path]:
    """Build the wheel and the source archive of the last commit into a folder."""
    with tempfile.TemporaryDirectory(prefix="source-") as folder:
        git("archive", "-o", f"{folder}/source.tar", "HEAD")
        with tarfile.open(f"{folder}/source.tar") as archive:
            archive.extractall(f"{folder}/source", filter="data")
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(out.resolve())]
        subprocess.run(command, cwd=f"{folder}/source", check=True, capture_output=True)
    return sorted(out.iterdir(), reverse=True)


def findings(package: Path) -> Iterator[str]:
    """What is wrong with one file, installed where nothing of the project is."""
    if package.suffix == ".whl" and package.stat().st_size > MOST_BYTES:
        yield f"{package.name} has {package.stat().st_size:,} bytes, above {MOST_BYTES:,}"
    with tempfile.TemporaryDirectory(prefix="package-") as name:
        place = bare(Path(name))
        pip = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", str(package.resolve())]
        if (installed := place.run(pip, place.folder)).returncode:
            yield f"{package.name} cannot be installed: {installed.stderr[-2000:]}"
            return
        for command, expected in TRIES:
            ran = place.run(["-m", "medil", *command.split()], place.folder / "pages")
            said = ran.stderr.strip()
            if ran.returncode != expected or "Traceback" in said:
                yield f"{package.name}: medil {command}: exit code {ran.returncode}: {said[-2000:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print findings; 1 if there are any, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m eval.gates.package", description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder for both files, if nothing is found")
    keep = parser.parse_args(arguments).keep
    with tempfile.TemporaryDirectory(prefix="dist-") as folder:
        packages = build(Path(folder))
        found = [finding for package in packages for finding in findings(package)]
        if keep and not found:
            keep.mkdir(exist_ok=True)
            for package in packages:
                shutil.copy(package, keep / package.name)
    names = " and ".join(path.name for path in packages)
    print("\n".join(found) or f"{names} install and run")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
