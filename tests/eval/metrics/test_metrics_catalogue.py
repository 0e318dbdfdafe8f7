"""The catalogue against what the metrics really do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from eval import metrics
from eval.metrics import METRICS, VOLUME_METRICS, catalogue
from eval.metrics.sets import prdc
from medil.errors import InputError

SPACING_MM = (1.0, 1.0, 1.0)
# Which way each metric moves when one fault grows: "+" up, "-" down; left out: not its matter.
BLUR = {
    "psnr": "-", "ssim": "-", "ms_ssim": "-", "nrmse": "+", "hfen": "+", "gradient_error": "+",
    "edge_width_mm": "+", "dice_csf": "-", "dice_grey": "-", "dice_white": "-",
}  # fmt: skip
NOISE = {
    "psnr": "-", "ssim": "-", "ms_ssim": "-", "nrmse": "+", "hfen": "+", "gradient_error": "+",
    "fsc_05_mm": "+", "dice_csf": "-", "dice_grey": "-", "dice_white": "-",
    "handles_per_cm3": "+",
}  # fmt: skip


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray]:
    """Three tissues in nested, folded shells, and texture; with its mask."""
    axes = [np.linspace(-1, 1, n) * n / 2 for n in (56, 60, 58)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    folds = 2.0 * np.sin(x / 2.5) * np.sin(y / 2.7) * np.sin(z / 2.6)
    depth_mm = 26 - np.sqrt(x**2 + y**2 + z**2) + folds
    tissue = 20.0 + 45 * (depth_mm > 3) + 40 * (depth_mm > 7)
    texture = np.random.default_rng(2).normal(size=tissue.shape)
    volume = ndimage.gaussian_filter(tissue, 0.6) + ndimage.gaussian_filter(texture, 0.7) * 4
    return volume, depth_mm > 0


def faults(head, kind: str) -> list[dict[str, float]]:
    truth, mask = head
    if kind == "blur":
        estimates = [ndimage.gaussian_filter(truth, s) for s in (0.5, 0.8, 1.2)]
    else:
        noise = np.random.default_rng(4).normal(size=truth.shape)
        estimates = [truth + s * noise for s in (4.0, 9.0, 20.0)]
    return [metrics.all_metrics(truth, e, mask, SPACING_MM) for e in estimates]


def test_every_metric_says_its_unit_range_direction_source_and_what_it_sees():
    for name, metric in METRICS.items():
        assert metric.name == name and metric.title and metric.unit
        assert metric.low < metric.high
        assert metric.higher_is_better in (True, False, None)
        assert len(metric.source) > 8 and metric.says.endswith(".")
        if metric.exact is not None:
            assert metric.low <= metric.exact <= metric.high
    assert len({m.title for m in METRICS.values()}) == len(METRICS)
    assert {m.direction for m in METRICS.values()} == {"↑", "↓", "="}
    assert set(VOLUME_METRICS) <= set(METRICS)
    assert set(metrics.UNITS) == set(METRICS)


def test_the_catalogue_knows_every_function_of_sets_and_bands():
    named = set(METRICS)
    assert {"mmd", "frechet", "ms_ssim_diversity"} <= named
    table = np.random.default_rng(0).normal(size=(8, 3))
    assert set(prdc(table, table, 2)) <= named
    assert {f"detail_{n}" for n in metrics.Detail.__dataclass_fields__} <= named


def test_a_copy_has_the_exact_value_of_every_metric(head):
    truth, mask = head
    found = metrics.all_metrics(truth, truth, mask, SPACING_MM)
    assert set(found) == set(metrics.scored())
    for name, value in found.items():
        exact = METRICS[name].exact
        assert exact is None or value == pytest.approx(exact)
        assert METRICS[name].low <= value <= METRICS[name].high
    assert found["fsc_05_mm"] == pytest.approx(2.0)
    assert not any("0143" in name for name in found)  # belongs to two noisy halves
    assert found["handles_per_cm3"] == pytest.approx(
        metrics.topology(metrics.white_surface(truth, mask, SPACING_MM)).handles
        / (mask.sum() / 1000)
    )


@pytest.mark.parametrize(("kind", "moves"), [("blur", BLUR), ("noise", NOISE)])
def test_a_growing_fault_moves_metrics_the_stated_way(head, kind, moves):
    found = faults(head, kind)
    for name, sign in moves.items():
        values = [f[name] for f in found]
        assert values == sorted(values, reverse=sign == "-"), (name, values)
        assert values[0] != values[-1], name
        better = METRICS[name].higher_is_better
        assert better is None or better == (sign == "-"), name
        assert all(METRICS[name].low <= v <= METRICS[name].high for v in values)


def test_a_mild_blur_alone_does_not_cost_resolution_by_fsc(head):
    first = faults(head, "blur")[0]
    assert first["fsc_05_mm"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    "case", ["constant truth", "constant estimate", "not finite", "tiny", "thin"]
)
def test_a_metric_without_a_value_is_nan_and_never_an_exception(head, case):
    truth, mask = (v.copy() for v in head)
    estimate = truth + 1.0
    if case == "constant truth":
        truth[:] = 5.0
    elif case == "constant estimate":
        estimate[:] = 5.0
    elif case == "not finite":
        estimate[30, 30, 30] = np.nan
    elif case == "tiny":
        mask[:] = False
        mask[30:32, 30:32, 30] = True
    else:
        truth, estimate, mask = (v[:, :, 28:30] for v in (truth, estimate, mask))
    found = metrics.all_metrics(truth, estimate, mask, (1.0, 1.0, 3.0))
    assert set(found) == set(metrics.scored())
    if case == "not finite":
        assert all(math.isnan(v) for v in found.values())
    if case in ("constant truth", "tiny"):
        assert math.isnan(found["edge_width_mm"])
    if case == "constant truth":
        assert math.isnan(found["fsc_05_mm"]) and math.isnan(found["handles_per_cm3"])
    if case == "constant estimate":
        assert found["edge_width_mm"] == pytest.approx(12.0)
        assert found["fsc_05_mm"] > 50  # agrees with nothing: coarser than the object


def test_lpips_is_left_out_without_weights_and_in_with_them(monkeypatch, head):
    from eval.metrics import perceptual

    truth, mask = head
    monkeypatch.setattr(perceptual, "network_or_none", lambda: None)
    assert "lpips" not in catalogue.scored()
    network = lambda a, b: (a - b).abs().mean(dim=(1, 2, 3))  # noqa: E731
    monkeypatch.setattr(perceptual, "network_or_none", lambda: network)
    assert "lpips" in catalogue.scored()
    assert metrics.all_metrics(truth, truth, mask, SPACING_MM)["lpips"] == 0.0


def test_bad_input_is_still_refused(head):
    truth, mask = head
    with pytest.raises(InputError, match="differ in shape"):
        metrics.all_metrics(truth, truth[1:], mask, SPACING_MM)
    with pytest.raises(InputError, match="mask is empty"):
        metrics.all_metrics(truth, truth, np.zeros_like(mask), SPACING_MM)
