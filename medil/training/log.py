"""Reports of a run in progress: a bar on the terminal, `log.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from medil.checksums import parsed
from medil.config import Schedule
from medil.system.files import atomic_output

LOG = "log.jsonl"
CURVES = (
    "loss", "psnr_db", "gain_db", "gradient_norm", "learning_rate", "steps_per_s", "voxels_per_s",
)  # fmt: skip


class RunLog:
    """The three records of one call, open within a `with` block.

    Args:
        out: Folder of the run.
        settings: Give the length of the run, in steps or in wall time.
        step: Step at which the call begins; later lines of the log are removed, because a killed
            run repeats those steps.
        progress: Share of the run that is done, 0 ... 1.
        silent: Write nothing, as all processes but the first do.
    """

    def __init__(
        self,
        out: Path,
        settings: Schedule,
        step: int = 0,
        progress: float = 0,
        silent: bool = False,
    ) -> None:
        self.silent, self.path = silent, out / LOG
        self.bar: Any = None
        self.board: Any = None
        if silent:
            return
        keep_until(self.path, step)
        self.length, unit = (
            (settings.steps, "step") if settings.steps else (round(60 * settings.minutes), "s")
        )
        self.bar = tqdm(total=self.length, initial=round(progress * self.length), unit=unit)
        self.board = _board(out, step)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            self.board.finalize("failed" if kind else "success")

    def advance(self, progress: float) -> None:
        """Move the bar to a share of the run, 0 ... 1."""
        if self.bar is not None:
            self.bar.update(min(int(progress * self.length), self.length) - self.bar.n)

    def write(self, row: dict[str, Any]) -> None:
        """Log one step.

        Args:
            row: step, progress, eta_s and those of `CURVES` that the learner reports.
        """
        if self.silent:
            return
        with self.path.open("a") as log:
            log.write(json.dumps(row) + "\n")
        self._draw(row)
        losses = ("loss", "psnr_db", "gain_db")
        shown: dict[str, Any] = {k: f"{row[k]:.4g}" for k in losses if k in row}
        kvox_s = f"{row['voxels_per_s'] / 1e3:.0f}"
        self.bar.set_postfix({"step": row["step"]} | shown | {"kvox_s": kvox_s})

    def _draw(self, row: dict[str, Any]) -> None:
        """Add a step to the curves; a disk that refuses them costs them alone."""
        if self.board is None:
            return
        try:
            self.board.log_metrics({k: row[k] for k in CURVES if k in row}, row["step"])
        except (OSError, ValueError):  # Lightning makes a ValueError of what its writer meets
            self.board = None
            tqdm.write("no more TensorBoard curves: their folder could not be written to")


def keep_until(path: Path, step: int) -> None:
    """Remove from a log the lines beyond a step, and a last line that was cut off."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if parsed(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    with atomic_output(path, force=True) as temporary:
        temporary.write_text("".join(kept), "utf-8")


def _board(out: Path, step: int) -> Any:
    """TensorBoard's log in `out/tensorboard`, or None where no writer is installed."""
    from lightning_fabric.loggers import TensorBoardLogger

    try:
        return TensorBoardLogger(out, name="tensorboard", version="", purge_step=step + 1)
    except ModuleNotFoundError:
        tqdm.write("no TensorBoard curves; for them: pip install 'medil-book[train]'")
        return None
