"""The live picture of the first page: frames a second in a browser without a window.

A frame is what a slider asks for: every voxel of the plane rendered anew, and drawn. Frames are
counted by the clock, and by the CPU time of the page's thread, which other processes do not slow.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from eval import browser
from eval.pictures.live import FIELD_MM, FOLDER, read_script
from eval.speed.timing import LIVE, Plan, Timing

FRAMES = 10  # a round
VOXEL_MM = 0.4
METRICS = ("frames_per_s", "frames_per_cpu_s")
ARMS = {  # what the sliders are set to
    "along the grid": {"tilt": 0, "error": False},
    "along the grid, with the error": {"tilt": 0, "error": True},
    "turned": {"tilt": 7, "error": False},
}
MOUNTED = """new Promise((done) => {
  const wait = () => Medil.live.viewers.length ? done(true) : setTimeout(wait, 20);
  wait();
})"""
SET = """(() => {{
  const viewer = Medil.live.viewers[0];
  Object.assign(viewer.state, {state});
  viewer.refresh();
}})()"""
ROUND = """(() => {{
  const viewer = Medil.live.viewers[0], start = performance.now();
  for (let frame = 0; frame < {frames}; frame++) {{
    viewer.state.slice = frame / 4;
    viewer.refresh();
  }}
  return performance.now() - start;
}})()"""


def measure(plan: Plan) -> list[Timing]:
    """Frames a second of 200 x 200 voxels, all arms in turns.

    Raises:
        InputError: Chromium is not installed.
    """
    taken: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as folder, browser.page() as page:
        page.open(as_page(Path(folder)))
        page.evaluate(MOUNTED)
        version = page.evaluate("navigator.userAgent.match(/Chrome.(\\d+)/)[1]")
        for _ in range(plan.rounds_fast):
            for arm, state in ARMS.items():
                taken[arm].append(frames_per_s(page, state))
    n = round(FIELD_MM / VOXEL_MM)
    picked = {"chromium": version, "weights": read_script()["weights"]}
    return [
        Timing(
            arm, LIVE, f"{n} x {n} voxels", dict(zip(METRICS, np.array(rounds).T, strict=True)),
            n * n, subject="MNI152 template", spacing_in_mm="1", spacing_out_mm=f"{VOXEL_MM:g}",
            config={**picked, **ARMS[arm]},
        )
        for arm, rounds in taken.items()
    ]  # fmt: skip


def frames_per_s(page: browser.Page, state: Mapping[str, Any]) -> tuple[float, float]:
    """Frames a second of one round: by the clock, and of the thread's CPU time."""
    told = json.dumps({"voxel": VOXEL_MM, "shifted": False, **state})
    page.evaluate(SET.format(state=told))
    before = page.cpu_s()
    taken_s = page.evaluate(ROUND.format(frames=FRAMES)) / 1000
    return FRAMES / taken_s, FRAMES / (page.cpu_s() - before)


def as_page(folder: Path) -> str:
    """The address of a page that holds the picture alone."""
    body = (FOLDER / "live.html").read_text("utf-8")
    body = body.replace("../interactive/live", FOLDER.resolve().as_uri())
    path = folder / "live.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><title>live</title>{body}', "utf-8")
    return path.as_uri()
