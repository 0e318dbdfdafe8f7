"""A page that shows every prepared scan: three planes before and after, numbers, and flags."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from medil.plots import PLANES, draw_plane, panels, window_of
from medil.system.files import atomic_output, make_folder
from medil.volume import Volume

BRAIN_ML = (800.0, 2000.0)  # intracranial volumes of adults lie well inside
MOST_FIELD = 3.0  # of the bright over the dark end of a bias field
MOST_TURN_DEG = 30.0
MOST_MM = 4.0  # of a voxel
PICTURES = "figures"  # folder beside the page
WIDTH, HEIGHT = 648, 432  # of a picture, in pixels
SHOWN = {  # in the page: fact -> header, format
    "brain_ml": ("Brain (ml)", "{:,.0f}"),
    "bias_field_range": ("Bias field, bright over dark", "{:.2f}"),
    "rotation_deg": ("Turned by (degrees)", "{:.1f}"),
}
STYLE = """body{font:15px sans-serif;margin:1.5em auto;max-width:70em;padding:0 1em}
img{max-width:100%}table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left}
img{height:auto}section{content-visibility:auto;contain-intrinsic-size:auto 40em}
section{border-top:1px solid #999;margin-top:1.5em}.flag{color:#b00020;font-weight:bold}
@media(prefers-color-scheme:dark){body{background:#121212;color:#ddd}.flag{color:#ff8a80}}"""


class Done(NamedTuple):
    """What became of one scan: its sidecar's content, or a sentence that says what was wrong."""

    name: str
    facts: dict[str, Any]
    failed: str = ""


def flags(facts: dict[str, Any], mask: Tensor, scan: Volume) -> list[str]:
    """What a person should look at, in words; our limits."""
    found = []
    low, high = BRAIN_ML
    if not low <= facts["brain_ml"] <= high:
        found.append(f"the brain has {facts['brain_ml']:,.0f} ml, not {low:,.0f} to {high:,.0f}")
    if facts.get("bias_field_range", 1.0) > MOST_FIELD:
        found.append(f"the bias field is strong ({facts['bias_field_range']:.1f})")
    if facts.get("rotation_deg", 0.0) > MOST_TURN_DEG:
        found.append(f"the head was turned by {facts['rotation_deg']:.0f} degrees")
    if max(scan.grid.spacing_mm) > MOST_MM:
        found.append(f"voxels are {max(scan.grid.spacing_mm):.1f} mm thick")
    edges = [mask.select(axis, end) for axis in range(3) for end in (0, -1)]
    if any(bool(edge.any()) for edge in edges):
        found.append("the brain touches the edge of the scan and may be cut")
    return found


def before_and_after(before: Volume, after: Volume, mask: Tensor) -> Any:
    """Three planes of a scan above those of its prepared brain, each through the brain's middle.

    The two have the same voxels; `mask` [D, H, W] says which are brain. A matplotlib figure.
    """
    figure, axes = panels(2, 3)
    middle_vox = np.argwhere(mask.numpy()).mean(axis=0)
    for row, (title, volume) in enumerate({"before": before, "after": after}.items()):
        point_mm = volume.grid.index_to_ras(middle_vox)
        for column, plane in enumerate(PLANES):
            draw_plane(axes[row, column], volume, plane, point_mm, window_of(volume))
            axes[row, column].set_title(f"{title}, {plane}")
    return figure


def draw(path: Path, before: Volume, after: Volume, mask: Tensor) -> None:
    """Write `before_and_after` as PNG."""
    import matplotlib.pyplot as plt

    figure = before_and_after(before, after, mask)
    make_folder(path.parent)
    with atomic_output(path, force=True) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
    plt.close(figure)


def write_page(path: Path, scans: Sequence[Done]) -> None:
    """Write the page: scans with flags or errors first."""
    order = sorted(scans, key=lambda one: not (one.failed or one.facts.get("flags")))
    flagged = sum(bool(one.facts.get("flags")) for one in scans)
    failed = sum(bool(one.failed) for one in scans)
    told = f"{len(scans)} scans, {flagged} with a flag, {failed} failed."
    sections = "\n".join(_section(one, path.parent) for one in order)
    with atomic_output(path, force=True) as temporary:
        temporary.write_text(
            f"<!doctype html><html lang='en'><meta charset='utf-8'>"
            f"<meta name='viewport' content='width=device-width'><title>Prepared scans</title>"
            f"<style>{STYLE}</style><h1>Prepared scans</h1><p>{told}</p>\n{sections}</html>\n",
            encoding="utf-8",
        )


def _section(one: Done, folder: Path) -> str:
    name = escape(one.name)
    if one.failed:
        return f"<section><h2>{name}</h2><p class='flag'>{escape(one.failed)}</p></section>"
    lines = "".join(f"<p class='flag'>{escape(flag)}</p>" for flag in one.facts["flags"])
    cells = "".join(
        f"<tr><th>{header}</th><td>{form.format(one.facts[fact])}</td></tr>"
        for fact, (header, form) in SHOWN.items()
        if fact in one.facts
    )
    picture = f"{PICTURES}/{one.name}.png"
    shown = (
        f"<img src='{escape(picture)}' alt='Three planes of {name} before and after' "
        f"loading='lazy' width='{WIDTH}' height='{HEIGHT}'>"
        if (folder / picture).exists()
        else ""
    )
    return f"<section><h2>{name}</h2>{lines}<table>{cells}</table>{shown}</section>"
