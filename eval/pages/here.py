"""What the first cells of a notebook ask: which profile fits this computer, and how long it takes.

Minutes come from the recorded rows of `eval.speed --parts pages`; where there are none, none are
said.
"""

from __future__ import annotations

import pandas as pd
import torch

from eval import speed
from eval.rows import RESULTS
from eval.speed.report import page_minutes


def profile_here(page: str) -> str:
    """The profile that fits this computer, `gpu` where torch sees a GPU and else `quick`.

    It prints why, and the recorded minutes of the page.

    Args:
        page: Name of the notebook, without its suffix.
    """
    gpu = torch.cuda.is_available()
    profile = "gpu" if gpu else "quick"
    what = torch.cuda.get_device_name() if gpu else "no GPU"
    print(f"Here is {what}: profile {profile}. {minutes(page, speed.EXPERIMENT.recorded(RESULTS))}")
    return profile


def minutes(page: str, frame: pd.DataFrame | None) -> str:
    """How long a page took where it was measured, as a sentence; empty where nothing is recorded.

    Example:
        >>> minutes("00_start", None)
        ''
    """
    table = page_minutes(frame) if frame is not None else pd.DataFrame(columns=["page"])
    own = table[table["page"] == page]
    took = [f"{line.minutes:.1f} minutes on {line.where}" for line in own.itertuples()]
    return f"Recorded: {', '.join(took)}." if took else ""
