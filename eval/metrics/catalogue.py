"""What every metric measures: unit, range, direction, source, and what it sees, in one table.

Tables, figures and pages take their titles and arrows from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from eval.metrics import perceptual
from eval.metrics.edges import REACH_MM


@dataclass(frozen=True)
class Metric:
    """One number that a table may hold."""

    name: str  # as in rows
    title: str  # as in tables and figures
    unit: str  # "1" when it has none
    low: float  # no value lies below
    high: float  # no value lies above
    higher_is_better: bool | None  # None where the truth's own value is best
    exact: float | None  # of an exact copy (of the real set); None where the truth decides
    source: str  # whose definition
    says: str  # one sentence on what it sees, or does not

    @property
    def direction(self) -> str:
        """An arrow to the better side; "=" where the truth's own value is best."""
        return {True: "↑", False: "↓", None: "="}[self.higher_is_better]


_OF_VOLUMES = (
    Metric(
        "psnr", "PSNR", "dB", -inf, inf, True, inf,
        "20 log10(peak / RMSE); peak: 99.5th percentile inside the mask, our choice",
        "Total error, wherever it is: mostly coarse shapes, which hold most of the power.",
    ),
    Metric(
        "ssim", "SSIM", "1", -1, 1, True, 1,
        "Wang et al. 2004, in 3-D",
        "Local brightness, contrast and pattern in a window 11 voxels wide; noise in flat "
        "places costs it much.",
    ),
    Metric(
        "ms_ssim", "MS-SSIM", "1", 0, 1, True, 1,
        "Wang et al. 2003, in 3-D",
        "The same at up to five scales: more forgiving of lost fine detail than SSIM.",
    ),
    Metric(
        "nrmse", "NRMSE", "1", 0, inf, False, 0,
        "scikit-image, Euclidean normalisation",
        "The error of PSNR relative to the truth's own norm.",
    ),
    Metric(
        "hfen", "HFEN", "1", 0, inf, False, 0,
        "Ravishankar and Bresler 2011, sigma 1.5 mm",
        "Error of structures about 7 mm long, lost or added alike.",
    ),
    Metric(
        "gradient_error", "Gradient error", "1", 0, inf, False, 0,
        "norm of the error of the gradient's magnitude over the norm of the truth's",
        "The finest detail that a grid holds, lost or added alike.",
    ),
    Metric(
        "fsc_05_mm", "Resolution at FSC 0.5", "mm", 0, inf, False, None,
        "van Heel 1986",
        "The finest detail, in mm, that still matches the truth. A mild blur does not change it: "
        "weakened detail still correlates.",
    ),
    Metric(
        "edge_width_mm", "Edge width", "mm", 0, 2 * REACH_MM, False, None,
        "10 to 90 % rise (ISO 12233) at the truth's strongest edges",
        "Blur, in mm; noise narrows it, and what was added between the edges does not count.",
    ),
    Metric(
        "dice_csf", "Dice of fluid", "1", 0, 1, True, 1,
        "Dice 1945, on three intensity classes",
        "Whether fluid would be segmented at the same voxels.",
    ),
    Metric(
        "dice_grey", "Dice of grey matter", "1", 0, 1, True, 1,
        "Dice 1945, on three intensity classes",
        "Whether grey matter would be: a thin ribbon, the most easily lost.",
    ),
    Metric(
        "dice_white", "Dice of white matter", "1", 0, 1, True, 1,
        "Dice 1945, on three intensity classes",
        "Whether white matter would be.",
    ),
    Metric(
        "components_per_cm3", "Pieces per cm³", "1/cm3", 0, inf, None, None,
        "connected components of the white-matter object, 26-connected",
        "Loose pieces of white matter, 8 mm³ and more: so few that one more or less shows.",
    ),
    Metric(
        "handles_per_cm3", "Handles per cm³", "1/cm3", 0, inf, None, None,
        "first Betti number of the white-matter object, from its Euler characteristic",
        "Bridges and holes of white matter: noise adds many, blur removes them, false folds that "
        "join add some.",
    ),
    Metric(
        "lpips", "LPIPS 2.5-D", "1", 0, inf, False, 0,
        "Zhang et al. 2018, AlexNet, slices along three axes",
        "Texture and sharpness as people judged them on photographs.",
    ),
)  # fmt: skip

_OF_BANDS = (
    Metric(
        "detail_kept", "Detail kept", "1", -inf, inf, None, 1,
        "least-squares gain per frequency shell, ours",
        "How strong the truth's detail of a band still is: 1 as it was, above 1 sharpened.",
    ),
    Metric(
        "detail_smoothed", "Detail smoothed", "1", 0, inf, False, 0,
        "1 - gain per frequency shell, ours",
        "How much of the truth's detail was weakened (or sharpened); nothing added counts.",
    ),
    Metric(
        "detail_invented", "Detail invented", "1", 0, inf, False, 0,
        "what no gain per frequency shell explains, ours",
        "Detail that is not the truth's: noise, ghosts, false folds, true folds elsewhere.",
    ),
    Metric(
        "detail_error", "Detail error", "1", 0, inf, False, 0,
        "error of a band over the truth in it, ours",
        "Both together: its square is the sum of their squares.",
    ),
)  # fmt: skip

_OF_SETS = (
    Metric(
        "mmd", "MMD", "1", -inf, inf, False, None,
        "Gretton et al. 2012",
        "Whether two sets of volumes look drawn from one distribution of features.",
    ),
    Metric(
        "frechet", "Fréchet distance of features", "1", 0, inf, False, 0,
        "Heusel et al. 2017, on features without weights: not FID",
        "Squared distance of the means and covariances of two sets of features.",
    ),
    Metric(
        "precision", "Precision", "1", 0, 1, True, 1,
        "Kynkäänniemi et al. 2019",
        "Which share of the made volumes lies among the real ones.",
    ),
    Metric(
        "recall", "Recall", "1", 0, 1, True, 1,
        "Kynkäänniemi et al. 2019",
        "Which share of the real volumes lies among the made ones.",
    ),
    Metric(
        "density", "Density", "1", 0, inf, True, None,
        "Naeem et al. 2020",
        "How thickly real volumes surround the made ones; about 1 for equal sets.",
    ),
    Metric(
        "coverage", "Coverage", "1", 0, 1, True, 1,
        "Naeem et al. 2020",
        "Which share of the real volumes has a made one nearby.",
    ),
    Metric(
        "ms_ssim_diversity", "MS-SSIM within a set", "1", 0, 1, None, None,
        "Odena et al. 2017",
        "How alike the volumes of one set are; the real set's own value is best.",
    ),
)  # fmt: skip

METRICS = {m.name: m for m in (*_OF_VOLUMES, *_OF_BANDS, *_OF_SETS)}
VOLUME_METRICS = tuple(m.name for m in _OF_VOLUMES)
UNITS = {name: m.unit for name, m in METRICS.items()}


def scored() -> tuple[str, ...]:
    """`VOLUME_METRICS` that `all_metrics` computes here: LPIPS only with its weights."""
    return tuple(
        n for n in VOLUME_METRICS if n != "lpips" or perceptual.network_or_none() is not None
    )
