"""Tables and sentences on segmentation, from recorded rows; measures nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from eval import stats
from eval import tables as shared
from eval.cited import cited
from eval.metrics.tissue import TISSUES
from eval.segmentation.measure import (
    CLASS,
    EXACT,
    INTENSITY,
    NAME,
    NETWORK,
    SEGMENTER,
    TISSUE,
)
from medil.anatomy.classes import CLASSES

ARMS = {
    SEGMENTER: "Network and intensities",
    NETWORK: "Network alone",
    INTENSITY: "Three classes of intensity",
}
TITLES = {"csf": "CSF", "grey": "grey matter", "white": "white matter"}


def wide(rows: pd.DataFrame, kind: str, against: str = EXACT) -> pd.DataFrame:
    """Dice of one kind of parts: one line a part and brain, one column an arm."""
    own = rows[(rows["kind"] == kind) & (rows["against"] == against)]
    return own.pivot_table(index=["part", "subject"], columns="arm", values="value")


def classes_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a class: the segmenter on painted heads, and what intensities add to it."""
    scores = wide(rows, CLASS)
    lines = []
    for name in CLASSES[1:]:
        if name not in scores.index:
            continue
        own = scores.loc[name]
        lines.append({
            "Class": name,
            "Dice": own[SEGMENTER].mean(),
            "Lowest": own[SEGMENTER].min(),
            "Highest": own[SEGMENTER].max(),
            ARMS[NETWORK]: own[NETWORK].mean(),
            "Gain by intensities": _text(_gain(own), sign=True),
            "n": len(own),
        })  # fmt: skip
    return pd.DataFrame(lines)


def tissues_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a tissue of painted heads: the mean of every arm."""
    scores = wide(rows, TISSUE)
    lines = []
    for name in TISSUES:
        if name in scores.index:
            own = scores.loc[name]
            means = {title: own[arm].mean() for arm, title in ARMS.items()}
            lines.append({"Tissue": TITLES[name], **means, "n": len(own)})
    return pd.DataFrame(lines)


def brains_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a real brain: agreement of the segmenter with the classes of intensity."""
    scores = wide(rows, TISSUE, INTENSITY)
    if scores.empty:
        return pd.DataFrame()
    table = scores[SEGMENTER].unstack("part")[list(TISSUES)].rename(columns=TITLES)
    table.insert(0, "Brain", table.index.map(shared.scan_name))
    return table.reset_index(drop=True)


# In words


def verdict(rows: pd.DataFrame) -> str:
    """What the segmenter reaches and what intensities add: lines with n and 95 % intervals."""
    return "\n".join([*_painted(rows), *_real(rows)])


def _painted(rows: pd.DataFrame) -> list[str]:
    scores = wide(rows, CLASS)
    if scores.empty:
        return []
    heads, classes = (scores.groupby(level).mean() for level in ("subject", "part"))
    gains = (classes[SEGMENTER] - classes[NETWORK]).sort_values()
    tissues = [
        f"{line['Tissue']} {line[ARMS[SEGMENTER]]:.3f} ({line[ARMS[INTENSITY]]:.3f})"
        for line in tissues_table(rows).to_dict("records")
    ]
    own, alone = (
        cited(_text(stats.compare(_column(heads[arm]))), against=EXACT, kind=CLASS, arm=arm)
        for arm in (SEGMENTER, NETWORK)
    )
    both = [SEGMENTER, NETWORK]
    added = cited(_text(_gain(heads), sign=True), against=EXACT, kind=CLASS, arm=both)
    return [
        f"Dice with the exact maps of n = {len(heads)} painted heads [95 % interval over heads]."
        f"{shared.few_heads(len(heads))}",
        f"Mean over {len(classes)} classes: {own}; the "
        f"network alone {alone}. Intensities add {added}: {gains.iloc[-1]:+.3f} in "
        f"{_named(gains.index[-1])}, the most, "
        f"{gains.iloc[0]:+.3f} in {_named(gains.index[0])}, the least.",
        "Three tissues, in brackets what three classes of intensity reach: "
        f"{', '.join(tissues)}.",
    ]  # fmt: skip


def _named(part: str) -> str:
    return TITLES["csf"] if part == "csf" else part


def _real(rows: pd.DataFrame) -> list[str]:
    scores = wide(rows, TISSUE, INTENSITY)
    if scores.empty:
        return []
    means = scores.groupby("part").mean()
    texts = [
        f"{TITLES[name]} {means.loc[name, SEGMENTER]:.3f} ({means.loc[name, NETWORK]:.3f})"
        for name in TISSUES
    ]
    n = scores.index.get_level_values("subject").nunique()
    return [
        f"Real brains (n = {n}) have no exact map. Agreement with three classes of intensity, "
        "which is no accuracy and rises with any use of intensities, in brackets that of the "
        f"network alone: {', '.join(texts)}."
    ]


def _gain(scores: pd.DataFrame) -> stats.Paired:
    """Segmenter minus network, over the lines."""
    return stats.compare(_column(scores[SEGMENTER] - scores[NETWORK]))


def _column(values: pd.Series) -> np.ndarray:
    return values.to_numpy()[:, None]


def _text(pair: stats.Paired, sign: bool = False) -> str:
    return shared.with_interval(pair.mean, pair.low, pair.high, 3, sign)


def tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables by file stem."""
    return {
        NAME: classes_table(rows),
        f"{NAME}_tissues": tissues_table(rows),
        f"{NAME}_brains": brains_table(rows),
    }
