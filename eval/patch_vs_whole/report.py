"""Tables and sentences on patches, from recorded rows; measures nothing."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from eval import tables as shared
from eval.cited import cited
from eval.patch_vs_whole.measure import NAME, OF_PATCHES, OF_REACH

ARMS = {"medil": "MedIL tiny", "medil_splines": "MedIL tiny, splines alone"}
ROUNDING_PERCENT = 1e-4  # of the peak: float32 sums in another order differ by less
VISIBLE_SEAM = 1.02  # 2 % steeper at the faces than elsewhere
HEADERS = {
    "difference": "Difference (% of peak)",
    "seam": "Seam (1 = none)",
    "drift": "Drift (% of peak)",
    "psnr_gain": "PSNR − whole's (dB)",
    "largest_cut": "Largest difference, rest cut off (% of peak)",
    "largest_black": "Largest difference, rest black (% of peak)",
}


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an arm, side, halo, scale and metric: the mean over heads, and its interval."""
    return shared.means(rows, ["arm", "side_mm", "own_scale", "halo_mm", "metric"], sort=True)


def patches_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an arm, patch side, scale and halo: mean and interval of each metric, for people."""
    table = means(rows)
    table = table[table["side_mm"] > 0]
    return _for_people(table, ["Code", "Patch side (mm)", "Scale", "Halo (mm)"], OF_PATCHES)


def reach_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per arm and halo: how much the first part of a bar still changes, for people."""
    table = means(rows)
    table = table[table["side_mm"] == 0]
    return _for_people(table, ["Code", "Halo (mm)"], OF_REACH)


def _for_people(table: pd.DataFrame, index: list[str], wanted: Collection[str]) -> pd.DataFrame:
    lines = []
    for (arm, side, own, halo), group in table.groupby(["arm", "side_mm", "own_scale", "halo_mm"]):
        named = {
            "Code": ARMS.get(arm, arm),
            "Patch side (mm)": side,
            "Scale": "each patch's own" if own else "the whole's",
            "Halo (mm)": halo,
        }
        line = {name: named[name] for name in index}
        for row in group.itertuples(index=False):
            if row.metric in wanted:
                line[HEADERS[row.metric]] = _number(row.metric, row.mean, row.low, row.high)
        lines.append(line | {"n": int(group["n"].max())})
    columns = [*index, *(HEADERS[m] for m in wanted), "n"]
    return pd.DataFrame(lines, columns=columns)


# In words


def verdict(rows: pd.DataFrame) -> str:
    """How much a halo recovers: lines of text, with n and 95 % intervals over heads."""
    table = means(rows)
    sentences = [
        f"Blocks of n = {table['n'].max()} held-out heads [95 % interval over heads]; patches "
        f"share the latent cells of the whole block.{shared.few_heads(table['n'].max())}"
    ]
    for arm, title in ARMS.items():
        own = table[table["arm"] == arm]
        for side in sorted(set(own["side_mm"]) - {0}, reverse=True):
            sentences.append(_of_side(own[own["side_mm"] == side], title, side))
        sentences.append(_reach(own[own["side_mm"] == 0], title))
    return "\n".join(s for s in sentences if s)


def answer(rows: pd.DataFrame) -> list[str]:
    """The difference without and with a halo, and the halo that removes seams: a line a side."""
    table = means(rows)
    (arm, title), lines = next(iter(ARMS.items())), []
    own = table[(table["arm"] == arm) & ~table["own_scale"].astype(bool)]
    for side in sorted(set(own["side_mm"]) - {0}, reverse=True):
        of_side = own[own["side_mm"] == side]
        halos = sorted(set(of_side["halo_mm"]))
        found = [
            cited(
                _text(of_side[of_side["halo_mm"] == h].set_index("metric"), "difference"),
                arm=arm, metric="difference", side_mm=side, halo_mm=h, own_scale=False,
            )
            for h in (halos[0], halos[-1])
        ]  # fmt: skip
        lines.append(
            f"{title}, {side} mm patches: they differ from the whole by {found[0]} % of the peak "
            f"with a halo of {halos[0]} mm, by {found[1]} % with {halos[-1]} mm (n = "
            f"{table['n'].max()} heads [95 % interval]). {_seams(of_side)}"
        )
    return lines


def _seams(table: pd.DataFrame) -> str:
    """From which halo on steps across faces are those of the whole block."""
    seams = table[table["metric"] == "seam"].set_index("halo_mm")["mean"].sort_index()
    clean = [halo for halo in seams.index if (seams.loc[halo:] < VISIBLE_SEAM).all()]
    enough = f"with a halo of {clean[0]} mm or more" if clean else "with none of the halos"
    return (
        f"Steps across faces stay within {100 * (VISIBLE_SEAM - 1):.0f} % of the whole block's "
        f"{enough}."
    )


def _of_side(table: pd.DataFrame, title: str, side: int) -> str:
    shared_scale = table[~table["own_scale"]]
    halos = sorted(set(shared_scale["halo_mm"]))
    texts = []
    for halo in (halos[0], halos[-1]) if len(halos) > 1 else halos:
        line = shared_scale[shared_scale["halo_mm"] == halo].set_index("metric")
        texts.append(
            f"halo {halo} mm: difference {_text(line, 'difference')} % of the peak, seams "
            f"{_text(line, 'seam')}, drift {_text(line, 'drift')} %, PSNR "
            f"{_text(line, 'psnr_gain')} dB"
        )
    text = f"{title}, {side} mm patches: {'; '.join(texts)}. {_seams(shared_scale)}"
    return text + _own_scale(table)


def _own_scale(table: pd.DataFrame) -> str:
    """What it costs to scale each patch by its own intensities."""
    own = table[table["own_scale"]]
    if own.empty:
        return ""
    texts = []
    for halo in sorted(set(own["halo_mm"])):
        line = own[own["halo_mm"] == halo].set_index("metric")
        texts.append(f"{_text(line, 'difference')} % (halo {halo} mm, seams {_text(line, 'seam')})")
    return f" With each patch on its own intensity scale the difference is {' and '.join(texts)}."


def _reach(table: pd.DataFrame, title: str) -> str:
    """The halo beyond which the rendering no longer changes."""
    black, cut = (table[table["metric"] == m].set_index("halo_mm") for m in reversed(OF_REACH))
    if black.empty:
        return ""
    listed = "; ".join(f"{h} mm {black.loc[h, 'mean']:.2g} %" for h in black.index[:-1])
    enough = [h for h in black.index[:-1] if (black.loc[h:, "mean"] <= ROUNDING_PERCENT).all()]
    if not enough:
        end = f"No halo below {black.index[-1]} mm, the whole bar, reduces it to rounding"
    else:
        end = f"From {enough[0]} mm on it is rounding (at most {ROUNDING_PERCENT:g} %)"
    text = f"{title}, largest difference at one face, in % of the peak, by halo: {listed}. {end}."
    left = cut.loc[enough[0], "mean"] if enough else 0
    if left > ROUNDING_PERCENT:
        text += (
            f" Cutting the bar there, instead of blackening the rest, changes it by {left:.1g} %, "
            "with the splines alone too. A likely cause is the projection's penalty, whose weight "
            "is a mean over the whole axis."
        )
    return text


def _text(line: pd.DataFrame, metric: str) -> str:
    """Mean and interval of one metric, as in the tables."""
    return (
        _number(metric, *line.loc[metric, ["mean", "low", "high"]]) if metric in line.index else ""
    )


def _number(metric: str, mean: float, low: float, high: float) -> str:
    """Seams and dB to three decimals; what spans decades to two figures."""
    if metric in ("seam", "psnr_gain"):
        return shared.with_interval(mean, low, high, 3)
    return f"{mean:.2g} [{low:.2g}, {high:.2g}]"


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {NAME: patches_table(rows), f"{NAME}_reach": reach_table(rows)}
