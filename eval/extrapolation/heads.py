"""What the models of this experiment are trained on: synthetic heads, all scanned at 1 mm."""

from __future__ import annotations

from pathlib import Path

from eval import heads
from eval.rows import digest
from medil.training.patches import Scan

FOLDER = Path("_build/extrapolation")
VERSION = 1  # part of every hash: raise it when other heads are drawn
TRAIN_SEED = 5000
TRAIN_MM = 1.0  # the only voxel size that training ever sees


def training_heads(count: int, folder: Path = FOLDER, workers: int = 1) -> list[Scan]:
    """Equally weighted heads of the train split at 1 mm; existing files are reused."""
    return heads.training_heads(_drawn(count), folder, head_name, lambda index: TRAIN_MM, workers)


def heads_digest(count: int) -> str:
    """SHA-256 of the recipe of the first `count` training heads."""
    return digest([head_name(head) for head in _drawn(count)])


def head_name(head: heads.Head) -> str:
    """The file of a training head; it changes with anything the head depends on."""
    recipe = [VERSION, head.map_sha256, TRAIN_SEED, TRAIN_MM, head.index, repr(head.style)]
    return heads.head_file(head.index, recipe)


def _drawn(count: int) -> list[heads.Head]:
    return heads.heads("train", TRAIN_SEED, count, heads.TRAINING)
