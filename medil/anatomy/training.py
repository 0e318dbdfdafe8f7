"""Train the tissue segmenter on patches of painted heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from medil.anatomy.classes import NUMBER
from medil.anatomy.config import SEGMENTER_PRESETS, SegmenterRun, SegmenterTraining
from medil.anatomy.network import TissueNet, positions
from medil.anatomy.painted import (
    PaintedHead,
    Patch,
    draw_painted_heads,
    draw_patch,
    read_painted_head,
)
from medil.anatomy.segmenter import load_segmenter, save_segmenter
from medil.errors import InputError
from medil.system.device import training_precision
from medil.system.files import make_folder
from medil.training.run import Learner, Run
from medil.training.update import copy_parameters, take_step

SMOOTH_VOX = 10.0  # added to both sides of the Dice ratio, so that a few voxels count little


class SegmenterLearner(Learner):
    """A tissue segmenter on a set of painted heads."""

    verb, recipe, presets = "train-segmenter", SegmenterRun, SEGMENTER_PRESETS

    def __init__(self, config: SegmenterRun, heads: Sequence[PaintedHead]) -> None:
        super().__init__(config)
        self.heads = heads

    @classmethod
    def from_source(
        cls, config: SegmenterRun, out: Path, source: Path | None, seed: int,
        earlier: dict[str, Any] | None, fabric: Any, workers: int,
    ) -> Self:  # fmt: skip
        """Draw heads into the folder `source`, or into the run's own."""
        make_folder(out)
        with fabric.rank_zero_first(local=True):
            paths = draw_painted_heads(
                "train", range(config.heads), source or out / "heads", processes=workers
            )
        return cls(config, [read_painted_head(path) for path in paths])

    def build(self) -> TissueNet:
        """The network with untrained weights."""
        return TissueNet(self.config.model)

    def step(
        self, model: nn.Module, optimiser: torch.optim.Optimizer, number: int, progress: float,
        seed: int, fabric: Any,
    ) -> dict[str, float]:  # fmt: skip
        """One optimiser step on patches of random heads."""
        settings = self.config.train
        rng = np.random.default_rng([seed, number])
        chosen = [self.heads[int(rng.integers(len(self.heads)))] for _ in range(settings.batch)]
        batch = [draw_patch(head, settings.side_vox, rng) for head in chosen]
        tensors = [t.to(fabric.device) for t in collate(batch, settings, rng)]

        def part_loss(index: int, count: int) -> Tensor:
            x, place, labels = (t.chunk(count)[index] for t in tensors)
            with training_precision(fabric.device, settings.bf16):
                scores = model(x, place)
            return tissue_loss(scores.float(), labels, settings.dice_weight)

        record = take_step(model, optimiser, settings, fabric, part_loss)
        return record | {"voxels": tensors[0].numel()}

    @classmethod
    def check_weights(cls, config: SegmenterRun, path: Path) -> None:
        """Refuse weights that are no segmenter's, or of another shape."""
        if load_segmenter(path).config != config.model:
            raise InputError(f"{path} holds weights of another network; begin without it.")

    def warm_start(self, run: Run, path: Path) -> None:
        """Start from another run's averaged weights.

        Raises:
            InputError: Unreadable weights, or of a network of another shape.
        """
        self.check_weights(self.config, path)
        earlier = load_segmenter(path)
        copy_parameters(earlier, run.bare)
        run.begin_from(earlier)

    def save_weights(self, ema: nn.Module, path: Path, facts: dict[str, Any]) -> None:
        """Write the averaged weights in half precision, with configuration and facts."""
        assert isinstance(ema, TissueNet)
        save_segmenter(ema, self.config, path, {**facts, "heads": len(self.heads)})


def collate(
    patches: Sequence[Patch], settings: SegmenterTraining, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Data [B, 1, S, S, S], positions [B, 3, S/2, S/2, S/2] and classes [B, S, S, S]."""
    places = []
    for patch in patches:
        shifted = patch.offset_mm + settings.shift_mm * rng.normal(size=3)
        places.append(positions(tuple(patch.data.shape), torch.from_numpy(shifted), torch.eye(3)))
    data = torch.stack([patch.data for patch in patches])[:, None]
    return data, torch.stack(places).float(), torch.stack([p.labels for p in patches])


def tissue_loss(scores: Tensor, labels: Tensor, dice_weight: float) -> Tensor:
    """Cross-entropy plus a weighted Dice loss, over the voxels that are not air.

    The Dice loss is one minus the mean over the classes that occur (Milletari et al. 2016).

    Args:
        scores: [B, classes, D, H, W] float32.
        labels: [B, D, H, W] uint8.
        dice_weight: Weight of the Dice loss.
    """
    known = labels != NUMBER["air"]
    own = scores.movedim(1, -1)[known]  # [N, classes]
    if not len(own):
        return 0.0 * scores.sum()
    wanted = labels[known].long()  # [N]
    log_shares = functional.log_softmax(own, dim=-1)
    entropy = functional.nll_loss(log_shares, wanted)
    truth = functional.one_hot(wanted, scores.shape[1]).float()
    shares = log_shares.exp()
    both, sizes = (shares * truth).sum(0), shares.sum(0) + truth.sum(0)
    dice = (2 * both + SMOOTH_VOX) / (sizes + SMOOTH_VOX)
    occurs = truth.any(0)
    return entropy + dice_weight * (1 - dice[occurs].mean())
