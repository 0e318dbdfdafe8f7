"""Tables and sentences on several machines, from recorded rows; measures nothing."""

from __future__ import annotations

import pandas as pd

from eval.machines.measure import BRAINS, CHESTS, FULL, LOSSES, SIMULATED, STORED
from eval.pairs import counted

DONE = {  # arm -> what is counted before the kill, and at last
    "training": ("steps", "steps"),
    "preprocess": ("scans", "scans"),
    "evaluate": ("rows", "scans"),
}


def _pivot(rows: pd.DataFrame) -> pd.DataFrame:
    """One line an arm and condition, one column a metric."""
    return rows.pivot_table(index=["arm", "condition"], columns="metric", values="value")


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each process that was killed."""
    lines = []
    for (arm, condition), own in _pivot(rows[rows["arm"].isin({a for a, _ in LOSSES})]).iterrows():
        goes_on = own["exit_code"] == 0
        lines.append({
            "Work": arm,
            "What is lost": condition,
            "Then": "goes on by itself" if goes_on else "ends; the same command goes on",
            "Sentences": f"{own['sentences']:.0f}",
            "Exit code": f"{own['exit_code']:.0f}",
            "Until the end (s)": f"{own['ended_s']:.0f}",
            "Half-written files": f"{own['half_written']:.0f}",
            "Done before": f"{own['done_before']:.0f} {DONE[arm][0]}",
            "Done at last": f"{own['done']:.0f} {DONE[arm][1]}",
        })  # fmt: skip
    return pd.DataFrame(lines)


def stores(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a number of small chest CTs, and one for a scan of full size."""
    lines = []
    found = _pivot(rows[rows["arm"].isin([STORED, FULL])])
    order = sorted(found.index, key=lambda key: (key[0] == FULL, _count(key[1])))
    for arm, condition in order:
        own = found.loc[arm, condition]
        name = "1 of full size" if arm == FULL else f"{_count(condition):,} small ones"
        lines.append({
            "Chest CTs": name,
            "CPU time (s)": f"{own['cpu_s']:,.0f}",
            "Peak memory (MB)": f"{own['peak_rss_mb']:,.0f}",
            "Second call (s of CPU time)": f"{own['again_s']:,.0f}",
            "Store (MB)": f"{own['size_mb']:,.1f}",
        })  # fmt: skip
    return pd.DataFrame(lines)


def _count(condition: str) -> int:
    """The number of scans in a condition; 0 where it names none."""
    last = condition.rpartition(" ")[2]
    return int(last) if last.isdecimal() else 0


def simulated(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a number of workers."""
    own = rows[rows["arm"] == SIMULATED]
    workers = own["condition"].str.extract(r"(\d+) workers")[0].astype(int)
    table = own.assign(workers=workers).pivot(index="workers", columns="metric", values="value")
    return pd.DataFrame([
        {"Workers": f"{count}", "Hours": f"{line['hours']:.1f}", "Memory of the command (MB)":
         f"{line['command_mb']:,.0f}"} for count, line in table.sort_index().iterrows()
    ])  # fmt: skip


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables by file stem."""
    made = {"machines_losses": losses, "machines_stores": stores, "machines_workers": simulated}
    return {stem: make(rows) for stem, make in made.items()}


def verdict(rows: pd.DataFrame) -> str:
    """What is lost with a machine, and what thousands of scans take."""
    return "\n".join([*on_losses(rows), *on_stores(rows), *on_workers(rows)])


def on_losses(rows: pd.DataFrame) -> list[str]:
    """One sentence on all trials."""
    found = _pivot(rows[rows["arm"].isin({a for a, _ in LOSSES})])
    if found.empty:
        return []
    by_itself = int((found["exit_code"] == 0).sum())
    ended = found[found["exit_code"] != 0]
    return [
        f"A process was killed in {counted(len(found), 'trial')}. In {by_itself} the others went "
        f"on by themselves; in {len(ended)} the command ended with an error after at most "
        f"{ended['ended_s'].max():.0f} s and {counted(int(ended['sentences'].max()), 'sentence')}, "
        "and a second call completed the work. "
        f"Half-written files: {found['half_written'].sum():.0f}."
    ]


def on_stores(rows: pd.DataFrame) -> list[str]:
    """A sentence on a thousand chest CTs of full size."""
    many, full = (rows[rows["arm"] == arm] for arm in (STORED, FULL))
    if many.empty or full.empty:
        return []
    counts = many["condition"].map(_count)
    most = many[counts == counts.max()].set_index("metric")["value"]
    one = full.set_index("metric")["value"]
    hours = CHESTS * one["cpu_s"] / 3600
    memory_mb = one["peak_rss_mb"] * most["peak_ratio"]
    return [
        f"{CHESTS:,} chest CTs of full size take one process {hours:.1f} h of CPU time to store, "
        f"and {memory_mb:,.0f} MB at its peak, simulated from one such scan and from "
        f"{counts.max():,} small ones, whose peak is {most['peak_ratio']:.2f} times that of "
        f"{counts.min():,}."
    ]


def on_workers(rows: pd.DataFrame) -> list[str]:
    """A sentence on the fewest and the most workers."""
    table = simulated(rows)
    if table.empty:
        return []
    first, last = table.iloc[0], table.iloc[-1]
    return [
        f"All steps on {BRAINS:,} raw heads take {first['Hours']} h with {first['Workers']} worker "
        f"and {last['Hours']} h with {last['Workers']}, simulated from the recorded speed of a "
        "process."
    ]
