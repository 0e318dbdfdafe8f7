"""Train a learner into one file, once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from medil.training.run import WEIGHTS, Learner, train


def train_once(path: Path, make: Callable[[], Learner], seed: int) -> Path:
    """The averaged weights of a run in a file; a run whose file exists is not made again.

    Args:
        path: The file, whose name should say all that the weights depend on.
        make: The learner, with its training set.
        seed: Seeds weight initialisation, data order and noise.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            train(make(), Path(folder), seed)
            (Path(folder) / WEIGHTS).replace(path)
    return path
