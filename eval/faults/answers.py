"""Twelve failures in words: what each leaves behind, where it comes from, its test and its cure.

Signatures have places for the readings of `eval.faults.clinic.signs`, so no number is written here.
Texts are HTML, for the page that `eval.pages.failures` makes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """One failure in words; `signature` has places for readings.

    Attributes:
        title: As readers choose it.
        signature: What it leaves in numbers and in the difference.
        cause: Where it comes from.
        test: The command or function that finds it.
        cure: What to do, with a link.
    """

    title: str
    signature: str
    cause: str
    test: str
    cure: str


def _page(name: str, words: str) -> str:
    return f'<a href="../{name}.html">{words}</a>'


FAILURES = {
    "scan": Failure(
        "the scan itself",
        "No difference: every reading is that of a copy.",
        "Nothing happened. Who finds a fault in this one is looking too hard.",
        "<code>eval.metrics.psnr</code> is infinite for a copy.",
        "None. Put a true scan among the pictures that you judge, now and then.",
    ),
    "blur": Failure(
        "blurred",
        "Long waves keep {long_kept} of their amplitude and short ones {short_kept}; hardly "
        "anything is invented ({invented}). The difference follows every border, with opposite "
        "signs on its two sides.",
        "Fewer numbers than the detail needs, or a loss that averages over what it cannot know.",
        "<code>eval.metrics.detail_split</code>, band by band: the gain falls smoothly.",
        "A layer that can follow fine waves, and a finer latent: "
        + _page("notebooks/02_spectral_bias_and_lte", "why networks blur") + ", "
        + _page("notebooks/03_reconstruction", "what a latent keeps") + ".",
    ),
    "false_folds": Failure(
        "invented folds",
        "All detail is there ({long_kept} of the long waves, {short_kept} of the short ones), and "
        "more: what the scan has not comes to {invented} of its long waves. The difference is "
        "a second anatomy.",
        "A generator that fills in what its input does not hold, or a rendering finer than the "
        "scan.",
        "<code>eval.metrics.topology.invented</code> counts false bridges, holes and islands.",
        "<code>medil reconstruct --guard mirrors</code>, and <code>--uncertainty</code> beside "
        "every fine rendering: " + _page("notebooks/15_false_gyri", "false gyri") + ".",
    ),
    "shift": Failure(
        "shifted by half a voxel",
        "The picture fits best when it is moved by {shift_mm}. Nothing looks wrong; in the "
        "difference every border is orange on one side and purple on the other, the same way "
        "round everywhere.",
        "A header that gives the corner of the first voxel where its centre belongs, or grids "
        "matched by their indices.",
        "<code>medil info</code>, line <code>half_voxel</code>; "
        "<code>eval.faults.clinic.misplaced</code> where the truth is at hand.",
        "Correct the affine, never the voxels: "
        + _page("book/header", "is my header right?") + ", "
        + _page("notebooks/01_coordinates", "coordinates") + ".",
    ),
    "voxel_size": Failure(
        "wrong voxel size",
        "The picture fits best when it is stretched by {stretch}. The difference is nothing in "
        "the middle and grows towards two opposite ends.",
        "A voxel size that was typed or rounded, a slice thickness taken for the distance of "
        "slices, or <code>align_corners</code>.",
        "<code>medil info</code>: <code>extent_mm</code> is not a head's, or <code>forms</code> "
        "disagree.",
        "Take the affine from the DICOM series (<code>medil convert</code>): "
        + _page("notebooks/17_your_scans", "your own scans") + ".",
    ),
    "window": Failure(
        "wrong intensity window",
        "{clipped} of the voxels lie at the least or the largest value: a histogram with a spike "
        "at either end. What was there is gone from the file.",
        "Values cut to a display window, or to percentiles of a part, before they were stored.",
        "<code>medil info</code> prints the intensities; count the voxels at both ends.",
        "Store what the scanner wrote, and scale reversibly "
        "(<code>medil.io.intensity.robust_intensity</code>); windows of CT have names: "
        + _page("notebooks/14_thin_structures", "thin airways") + ".",
    ),
    "flip": Failure(
        "left and right flipped",
        "Its correlation with the mirrored scan exceeds that with the scan by {mirrored}. By "
        "itself it looks perfect. The difference shows both anatomies at once.",
        "An array turned without its affine, or a picture in radiological order read as another.",
        "<code>medil info</code>, lines <code>orientation</code> and <code>forms</code>; a marker "
        "in the scan, or a known lesion.",
        "Turn axes and affine together (<code>medil.grid.Grid.reoriented</code>): "
        + _page("notebooks/01_coordinates", "coordinates") + ".",
    ),
    "aliasing": Failure(
        "aliased",
        "Short waves are gone ({short_kept} kept) and came back as long ones: {invented} of "
        "the detail in long waves is new. Borders have steps that no scan has.",
        "Voxels read at their centres, without the average over the cell.",
        "Average the fine rendering over coarse voxels (<code>medil.regrid.cell_average</code>); "
        "it has to equal the coarse rendering.",
        "Integrate over each voxel, as <code>MedIL.decode</code> does in closed form: "
        + _page("notebooks/02_spectral_bias_and_lte", "the texture estimator") + ".",
    ),
    "ringing": Failure(
        "ringing",
        "Long waves are whole ({long_kept}) and short ones gone ({short_kept}), with a sharp edge "
        "between. In the difference, borders have echoes at one distance.",
        "Frequencies cut off: zero-filled k-space, or a code of the lowest cosines.",
        "<code>eval.metrics.detail_split</code>, band by band: the gain drops from one to zero.",
        "A code whose spectrum ends smoothly (<code>medil.model.codecs.bspline</code>); what the "
        "scanner did is part of the scan, and stays: "
        + _page("notebooks/08_metrics", "what each metric sees") + ".",
    ),
    "noise": Failure(
        "noise",
        "Of the difference, the finest waves have {grain} times the power of middling ones. White "
        "noise has once; borders have a few hundredths. No border shows in it.",
        "The scanner's, or a sampler that was stopped too early.",
        "<code>eval.faults.clinic.grain</code>; <code>python -m eval.robustness</code> dials it "
        "up.",
        "No small code keeps noise. Judge codes by detail, not by PSNR against a noisy scan: "
        + _page("notebooks/08_metrics", "what each metric sees") + ".",
    ),
    "bias": Failure(
        "shading",
        "A smooth gain varies by {shading} over the brain (SD). The difference is smooth: too dark "
        "on one side, too bright on the other, with hardly a border in it.",
        "The sensitivity of the receiving coil (a bias field).",
        "<code>eval.faults.clinic.shading</code> where the truth is at hand; else the page of "
        "<code>medil preprocess</code> shows the scan before and after.",
        "<code>medil preprocess</code> (N4) before encoding, since a latent keeps the field whole: "
        + _page("notebooks/17_your_scans", "your own scans") + ".",
    ),
    "seams": Failure(
        "seams between tiles",
        "Steps between voxels are {seam} times as high across the faces of tiles as elsewhere. "
        "Each tile of the difference has a tint of its own.",
        "Patches that were scaled or decoded each for itself.",
        "<code>eval.patch_vs_whole.patches.seam_ratio</code>; "
        "<code>python -m eval.patch_vs_whole</code>.",
        "One intensity scale for the whole volume, and tiles that overlap: "
        + _page("notebooks/04_two_stage_training", "patches and the whole") + ".",
    ),
}  # fmt: skip


# Readings in words


READINGS = {  # sign -> words, and how it is printed
    "psnr_db": ("PSNR", "{:.1f} dB"),
    "clipped": ("Voxels at the least or the largest value", "{:.0%}"),
    "mirrored": ("Correlation with the mirrored scan, less that with the scan", "{:+.2f}"),
    "seam": ("Steps across the faces of tiles, over those elsewhere", "{:.2f}"),
    "stretch": ("Best fit is stretched by", "{:+.1%}"),
    "shift_mm": ("Best fit is moved by", "{:.2f} mm"),
    "shading": ("A smooth gain varies by (SD)", "{:.1%}"),
    "invented": ("Long waves (20 to 6.7 mm) that the scan has not", "{:.0%}"),
    "long_kept": ("Long waves kept", "{:.0%}"),
    "short_kept": ("Short waves (3.3 to 2.2 mm) kept", "{:.0%}"),
    "grain": ("Power of the error, finest over middling waves", "{:.3f}"),
}


def told(name: str, value: float) -> str:
    """A reading as it is printed."""
    if math.isnan(value):
        return "none"
    text = READINGS[name][1].format(value).replace("-", "−").replace("%", " %")
    return text.replace("inf", "∞")
