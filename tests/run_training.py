"""A training run on blocks that are made here: for tests, also as a process of its own.

python -m tests.run_training '{"out": "folder", "steps": 8, "batch": 2, ...}'
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from medil.config import PRESETS, RunConfig
from medil.training.autoencoder import AutoencoderLearner
from medil.training.patches import Scan
from medil.training.run import train

TEST = PRESETS["test"]


def block_scans(side: int = 32) -> list[Scan]:
    """Two volumes of random 4 mm blocks, one of them with voxels that are not cubes."""
    rng = np.random.default_rng(5)
    scans = []
    for name, spacing_mm in (("cubes", (1.0, 1.0, 1.0)), ("slices", (1.0, 1.25, 2.0))):
        coarse = rng.random((side // 4,) * 3)
        blocks = torch.from_numpy(np.kron(coarse, np.ones((4, 4, 4)))).float()
        scans.append(Scan(blocks, spacing_mm, np.argwhere(blocks.numpy() > 0.02), 1.0, name))
    return scans


def config_of(**settings) -> RunConfig:
    """The test preset in float32 with some fields of `TrainConfig` changed."""
    settings = {"bf16": False, "log_every": 1, "save_every": 2, **settings}
    return replace(TEST, train=replace(TEST.train, **settings))


def run(
    out: Path, resume: bool = False, seed: int = 0, wait_s: float = 0, call: dict | None = None,
    **settings,
):  # fmt: skip
    """Train into a folder, made if missing; gives the averaged weights' model.

    Args:
        out: Folder.
        resume: Go on.
        seed: Of the run.
        wait_s: Before each step, for those who want to stop the process.
        call: Further arguments of `train`.
        settings: Fields of `TrainConfig`.
    """
    Path(out).mkdir(exist_ok=True)
    learner = Waiting(config_of(**settings), block_scans(), wait_s=wait_s)
    return train(learner, Path(out), seed, resume, **(call or {}))


class Waiting(AutoencoderLearner):
    """A learner that waits before each step."""

    def __init__(self, *arguments, wait_s: float = 0) -> None:
        super().__init__(*arguments)
        self.wait_s = wait_s

    def draw(self, *arguments):
        time.sleep(self.wait_s)
        return super().draw(*arguments)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    fabric = None
    if "processes" in options:
        from medil.training.launch import launch

        fabric = launch(None, "cpu")
        assert fabric.world_size == options.pop("processes")
    run(call={"fabric": fabric}, **options)
