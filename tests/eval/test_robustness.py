"""Damaged blocks through codes whose answer is known, and the sentences made of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from eval import rows, rows_file
from eval.coders.base import Coder, Kept
from eval.robustness import EXPERIMENT, heads, measure, report
from eval.robustness import damage as damages
from eval.robustness.damage import BRAIN, DAMAGES, FAR, NEAR, apply
from eval.subjects import Scan, Subject, cut_box
from medil.errors import InputError
from medil.grid import Grid
from medil.volume import Volume

PROVENANCE = rows.Provenance.now("quick")
SIDES_MM = (48.0, 32.0, 32.0)


class Echo(Coder):
    """Renders so much of what it is given: the answer of every question is that share."""

    kind = "linear codec"

    def __init__(self, name: str = "medil", share: float = 1.0) -> None:
        self.name = self.title = name
        self.share = self.config = share

    def encode(self, volume: Volume) -> Kept:
        return Kept(volume.data.double().numpy(), volume.grid.n_voxels)

    def decode(self, kept: Kept, grid: Grid) -> np.ndarray:
        return self.share * kept.what


@pytest.fixture(scope="module")
def head() -> Scan:
    """An ellipsoid of smooth texture in air, 1 mm, off-centre."""
    shape = (52, 44, 48)
    grid = Grid.from_spacing(shape, 1.0, (-30.0, 4.0, -11.0))
    axes = np.ogrid[:52, :44, :48]
    inside = sum(((a - m) / r) ** 2 for a, m, r in zip(axes, (25, 21, 24), (20, 16, 19))) < 1
    wave = np.sin(axes[0] / 3) * np.cos(axes[1] / 4) * np.sin(axes[2] / 5)
    data = np.where(inside, 500 + 200 * wave, 0.0)
    return Scan(Volume(torch.from_numpy(data).float(), grid), inside)


@pytest.fixture(scope="module")
def subject(head):
    """That head, and blocks of its size."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (damages, measure):
            patch.setattr(module, "BLOCK_MM", SIDES_MM)
        yield Subject("toy", "a" * 64, (), lambda: head)


def named(kind: str, number: int = 0) -> damages.Damage:
    return [d for d in DAMAGES if d.kind == kind][number]


# Heads and blocks


def test_a_trimmed_head_keeps_its_place_and_so_much_air(head):
    cut = heads.trimmed(head)
    where = np.argwhere(cut.mask)
    np.testing.assert_array_equal(where.min(0), [6, 6, 6])  # 6 mm is all the air there was
    np.testing.assert_array_equal(np.array(cut.mask.shape) - 1 - where.max(0), [7, 7, 5])
    first = cut.volume.grid.index_to_ras(where[0])
    np.testing.assert_allclose(first, head.volume.grid.index_to_ras(np.argwhere(head.mask)[0]))


def test_the_block_is_the_left_upper_part_of_the_head(head):
    box = heads.block_of(head, SIDES_MM)
    block = cut_box(head, box)
    np.testing.assert_allclose(block.volume.grid.extent_mm, SIDES_MM)
    assert box[0].start == 0 and box[2].stop == 48
    assert abs((box[1].start + box[1].stop) / 2 - 21.5) <= 1
    assert 0 < block.mask.mean() < 1
    with pytest.raises(InputError, match="does not fit"):
        heads.block_of(head, (60.0, 32.0, 32.0))


def test_profiles_name_held_out_heads_once(monkeypatch):
    monkeypatch.setattr("medil.data.manifest.available", lambda entry: True)
    quick, gpu = heads.heads("quick"), heads.heads("gpu")
    assert [h.name for h in (gpu[0], gpu[7])] == [h.name for h in quick]
    assert len({h.data_sha256 for h in gpu}) == len(gpu) == 11
    with pytest.raises(InputError, match="not 'huge'"):
        heads.heads("huge")


# Damage


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: f"{d.kind} {d.level}")
def test_damage_repeats_itself_and_stays_on_its_grid(subject, head, damage):
    first, again = (apply(damage, head, subject.data_sha256) for _ in range(2))
    assert torch.equal(first.volume.data, again.volume.data)
    assert set(first.regions) == set(damage.regions)
    clean = cut_box(cut_box(head, heads.block_of(head, SIDES_MM)), first.box)
    assert first.volume.grid.is_close(clean.volume.grid)
    everywhere = np.sum(list(first.regions.values()), axis=0)
    np.testing.assert_array_equal(everywhere, clean.mask)  # each voxel of the brain once
    given = first.undone(first.volume.data.double().numpy())
    if damage.kind in (damages.NONE, damages.SCALE, damages.CROP):
        np.testing.assert_allclose(given, clean.volume.data, atol=0.4)  # half of int16's step
    elif damage.kind != damages.OUTLIER:
        assert np.abs(given - clean.volume.data.numpy())[clean.mask].max() > 1


def test_noise_differs_between_heads(subject, head):
    ours, theirs = (apply(named(damages.NOISE), head, who * 64).volume.data for who in "ab")
    assert not torch.equal(ours, theirs)


def test_a_cut_takes_its_millimetres_from_the_right_and_marks_ten_beside_it(subject, head):
    damaged = apply(named(damages.CROP, 1), head, "a" * 64)
    assert damaged.volume.grid.shape == (33, 32, 32)  # of 48, less 15 mm
    planes = np.flatnonzero(damaged.regions[NEAR].any(axis=(1, 2)))
    assert planes.min() == 23 and planes.max() == 32  # the last ten
    assert damaged.regions[FAR].any() and not damaged.regions[FAR][23:].any()


def test_a_hot_voxel_lies_in_the_middle_of_its_region(subject, head):
    damage = named(damages.OUTLIER, 1)
    damaged = apply(damage, head, "a" * 64)
    data = damaged.volume.data.numpy()
    where = np.argwhere(data == data.max())
    assert len(where) == 1 and data.max() > 90 * np.percentile(data, 99)
    near = np.argwhere(damaged.regions[NEAR])
    assert np.linalg.norm(near - where, axis=1).max() <= damages.NEAR_MM
    assert damaged.regions[NEAR][tuple(where[0])]


# Scores


@pytest.fixture(scope="module")
def folder(subject, tmp_path_factory) -> Path:
    """Rows of one head: all of it as MedIL, half of it as the ball DCT."""
    arms = [Echo("medil", 1.0), Echo("dct_ball", 0.5)]
    folder = tmp_path_factory.mktemp("rows")
    found = measure.measure(subject, arms, PROVENANCE)
    rows_file.append_rows(folder / "robustness.jsonl", found)
    return folder


@pytest.fixture
def frame(folder) -> pd.DataFrame:
    return EXPERIMENT.recorded(folder)


def test_what_is_recorded_is_what_was_promised(subject, frame):
    arms = [Echo("medil", 1.0), Echo("dct_ball", 0.5)]
    found = set(frame[list(rows.IDENTITY)].itertuples(index=False, name=None))
    assert found == set(measure.wanted(subject, arms))
    assert len(found) == len(frame)


def test_an_echo_passes_on_its_share_of_every_damage(frame):
    passed = frame[frame["metric"] == "passed_on"]
    for arm, share in (("medil", 1.0), ("dct_ball", 0.5)):
        np.testing.assert_allclose(passed[passed["arm"] == arm]["value"], share, rtol=1e-6)


def test_an_echo_is_true_to_its_input_and_no_cleaner_than_it(frame):
    own = frame[frame["arm"] == "medil"]
    given = own[(own["against"] == measure.INPUT) & (own["metric"] == "psnr")]
    assert given["value"].isna().all() and len(given) == 13  # exact: no bound
    clean = own[(own["against"] == measure.CLEAN) & (own["metric"] == "psnr")]
    nearer = own[own["metric"] == "nearer"]["value"]
    np.testing.assert_allclose(nearer, 0, atol=1e-9)  # the input itself
    noise = clean[clean["kind"] == damages.NOISE]["value"].to_numpy()
    np.testing.assert_allclose(np.diff(noise), -20 * np.log10(2), atol=0.25)  # SNR halves


def test_change_of_an_echo_is_the_damage_in_percent_of_the_peak(subject, head, frame):
    from eval.metrics import peak_intensity

    damage = named(damages.GHOSTS, 2)
    damaged = apply(damage, head, subject.data_sha256)
    clean = cut_box(head, heads.block_of(head, SIDES_MM))
    difference = (damaged.volume.data - clean.volume.data).double().numpy()[clean.mask]
    expected = 100 * np.sqrt(np.mean(difference**2))
    expected /= peak_intensity(clean.volume.data.double().numpy(), clean.mask)
    condition = measure.condition(damage, BRAIN, measure.RENDERED)
    row = frame[(frame["condition"] == condition) & (frame["arm"] == "medil")].set_index("metric")
    assert row.loc["change", "value"] == pytest.approx(expected)


def test_the_table_lists_damages_in_the_order_in_which_they_are_done(frame):
    table = report.robustness_table(frame)
    damage = [(d.kind, d.level) for d in DAMAGES]
    listed = table[["Damage", "Strength"]].drop_duplicates().itertuples(index=False, name=None)
    assert list(listed) == damage
    line = table[(table["Strength"] == "SNR 5") & (table["Code"] == "DCT, lowest ball")].iloc[0]
    assert line["Passed on"] == "0.50 [0.50, 0.50]" and line["n"] == 1


# Running and reporting


@pytest.fixture
def few(subject, monkeypatch):
    """The experiment on the toy alone, with one echo."""
    monkeypatch.setattr(measure, "heads", lambda profile: [subject])
    monkeypatch.setattr(measure, "coders", lambda release: [Echo()])


def test_a_second_run_computes_nothing(few, tmp_path, capsys):
    arguments = ["--out", str(tmp_path / "rows"), "--workers", "0"]
    assert EXPERIMENT.main(arguments) == 0
    before = (tmp_path / "rows/robustness.jsonl").read_bytes()
    assert EXPERIMENT.main(arguments) == 0
    assert (tmp_path / "rows/robustness.jsonl").read_bytes() == before
    out = capsys.readouterr().out
    assert "0 new rows in robustness.jsonl" in out and "n = 1 held-out heads" in out


def test_damages_do_not_depend_on_what_was_done_before(subject):
    last = named(damages.OUTLIER), named(damages.NOISE)
    once = measure.measure(subject, [Echo()], PROVENANCE, last)
    again = measure.measure(subject, [Echo()], PROVENANCE, last[::-1])
    assert {(r.identity, r.value) for r in once} == {(r.identity, r.value) for r in again}


def test_verdict_says_what_the_numbers_allow(frame):
    told = report.verdict(frame)
    assert "Noise, SNR 40 and SNR 5: MedIL tiny passes it on unchanged" in told
    assert "little more than their range" in told
    assert "Over all strengths MedIL tiny passes on 0.50 more than DCT, lowest ball [+0.50" in told
    assert "MedIL tiny absorbs x 0.1, x 1000, int16, air at -1024, air raised to the peak" in told
    assert "Crop, 30 mm cut off: the rendering changes within 10 mm and farther away" in told
    damped = frame.assign(value=frame["value"].where(frame["metric"] != "passed_on", 0.4))
    assert "Ghosts, 2 % of the signal and 10 % of the signal: MedIL tiny damps it" in (
        report.verdict(damped)
    )


def test_newer_weights_replace_older_rows(frame):
    later = frame[frame["arm"] == "medil"].assign(
        weights_sha256="b" * 64, value=0.25,
        recorded_at=frame["recorded_at"].max() + pd.Timedelta(hours=1),
    )  # fmt: skip
    table = report.metrics_table(EXPERIMENT.prepare(pd.concat([frame, later])))
    passed = table[table["Metric"] == "passed_on"].set_index("Arm")["Mean"]
    np.testing.assert_allclose(passed["medil"], 0.25)
    np.testing.assert_allclose(passed["dct_ball"], 0.5)


def test_a_damage_is_a_value_that_travels():
    damage = named(damages.NOISE)
    assert replace(damage) == damage and hash(damage) == hash(replace(damage))
