"""A table and sentences on preparing scans, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.cited import cited
from eval.preprocessing.measure import FIELD, MASK, TURN
from eval.preprocessing.scale import MANY, PROCESSES, RATE
from eval.tables import with_interval

SHOWN = {  # kind, metric -> header, decimals
    (TURN, "rotation_error_deg"): ("Tilt that is left (degrees)", 2),
    (TURN, "shift_error_mm"): ("Shift of the brain's middle that is left (mm)", 2),
    (FIELD, "field_before"): ("Field that was put in (SD of its logarithm)", 3),
    (FIELD, "field_after"): ("Field that is left (SD of its logarithm)", 3),
    (MASK, "dice"): ("Brain found again in stripped scans (Dice)", 3),
}
SHOWN_OF_MANY = {  # metric -> header, format
    "scans_per_minute": ("Scans a minute", "{:,.0f}"),
    "cpu_s": ("CPU time (s)", "{:,.0f}"),
    "peak_ratio": ("Peak memory, over that of the fewest", "{:.2f}"),
    "again_s": ("Second call, all done (s)", "{:,.0f}"),
    "listing_s": ("Listing (s)", "{:.2f}"),
    "entries": ("Entries of the page", "{:,.0f}"),
}
TURNED = ("rotation_error_deg", "shift_error_mm")
MOST_DEG, MOST_MM = 2.0, 2.0  # what the verdict counts


def values(rows: pd.DataFrame, kind: str, metric: str) -> pd.Series:
    """All values of a metric of one kind."""
    own = rows[(rows["metric"] == metric) & rows["condition"].str.startswith(kind)]
    return own["value"].dropna()


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a question: mean, lowest and highest over scans and draws."""
    lines = []
    for (kind, metric), (header, digits) in SHOWN.items():
        own = values(rows, kind, metric)
        if len(own):
            text = with_interval(own.mean(), own.min(), own.max(), digits)
            scans = rows[rows["condition"].str.startswith(kind)]["subject"].nunique()
            lines.append({"What": header, "Mean [lowest, highest]": text,
                          "n": f"{scans} scans, {len(own)} draws"})  # fmt: skip
    return pd.DataFrame(lines)


def of_many(rows: pd.DataFrame) -> pd.DataFrame:
    """Values of the simulated scans by their number, one column a metric; both sorted."""
    own = rows[rows["arm"] == MANY]
    own = own.assign(scans=own["condition"].str.removeprefix(f"{MANY} ").astype(int))
    return own.pivot(index="scans", columns="metric", values="value").sort_index()


def many_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a number of simulated scans."""
    lines = []
    for count, own in of_many(rows).iterrows():
        shown = {head: form.format(own[metric]) for metric, (head, form) in SHOWN_OF_MANY.items()}
        lines.append({"Scans": f"{count:,}"} | shown)
    return pd.DataFrame(lines)


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    return {"preprocessing": table(rows), "preprocessing_many": many_table(rows)}


def verdict(rows: pd.DataFrame) -> str:
    """How many known tilts were found, what the other steps leave, and what thousands cost."""
    lines = []
    turns, shifts = (values(rows, TURN, m) for m in TURNED)
    if len(turns):
        good = int(((turns.to_numpy() < MOST_DEG) & (shifts.to_numpy() < MOST_MM)).sum())
        lines.append(
            f"{cited(f'{good} of {len(turns)}', metric=list(TURNED))} known tilts of held-out real "
            f"scans are found to within {MOST_DEG:g} degrees and {MOST_MM:g} mm; the largest that "
            f"is left is {cited(f'{turns.max():.2f} degrees', metric=TURNED[0])} and "
            f"{cited(f'{shifts.max():.2f} mm', metric=TURNED[1])}."
        )
    before, after = (values(rows, FIELD, m) for m in ("field_before", "field_after"))
    if len(before):
        left = f"{100 * after.mean() / before.mean():.0f} %"
        lines.append(
            f"Of a known bias field, N4 leaves "
            f"{cited(left, metric=['field_before', 'field_after'])} "
            f"(standard deviation of its logarithm, mean of n = {len(after)} scans)."
        )
    overlap = values(rows, MASK, "dice")
    if len(overlap):
        lines.append(
            f"deepbet finds the brain again in scans that others stripped with a Dice of "
            f"{cited(f'{overlap.mean():.3f}', metric='dice')} (lowest {overlap.min():.3f}, "
            f"n = {len(overlap)})."
        )
    return "\n".join([*lines, *on_many(rows), *on_rate(rows)])


def on_many(rows: pd.DataFrame) -> list[str]:
    """A sentence on the most simulated scans beside the fewest."""
    many = of_many(rows)
    if len(many) < 2:
        return []
    fewest, most, last = many.index[0], many.index[-1], many.iloc[-1]
    each_ms = 1000 * many["cpu_s"] / many.index
    return [
        f"{most:,} simulated scans, which need no step but a given mask, take one process "
        f"{cited(f'{each_ms.iloc[-1]:.0f} ms', arm=MANY, metric='cpu_s')} of CPU time each "
        f"({each_ms.iloc[0]:.0f} ms with {fewest:,}, "
        f"start of the command included); its peak memory is "
        f"{cited(f'{last.peak_ratio:.2f} times', arm=MANY, metric='peak_ratio')} that "
        f"with {fewest:,}, a second call that finds all done takes "
        f"{cited(f'{last.again_s:,.0f} s', arm=MANY, metric='again_s')}, and "
        f"the page has {last['entries']:,.0f} entries."
    ]


def on_rate(rows: pd.DataFrame) -> list[str]:
    """A sentence on real heads with all steps."""
    own = rows[rows["arm"] == RATE].set_index("metric")["value"]
    if own.empty:
        return []
    return [
        f"With all steps, {cited(f'{own.scans_per_minute:.1f}', arm=RATE)} raw heads a minute are "
        "prepared by "
        f"{PROCESSES} processes (n = {own['scans']:.0f} heads)."
    ]
