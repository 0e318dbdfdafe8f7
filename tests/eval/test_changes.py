"""What changed between two records of rows, and rows as a commit holds them."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from eval import changes, rows, rows_file
from medil.errors import InputError

MADE_BY = rows.Provenance("c" * 40, False, 0, "cpu", 1, {"python": "3"}, "quick")


def made(subject="a", value=27.5, day=1, seed=0, profile="quick", **fields) -> rows.Row:
    """A row, recorded on a day of January."""
    usual = {
        "experiment": "reconstruction",
        "arm": "medil",
        "condition": "native",
        "metric": "psnr",
        "unit": "dB",
    }
    return rows.Row(
        **(usual | fields),
        subject=subject,
        value=value,
        spacing_in_mm="1",
        spacing_out_mm="1",
        numbers_kept=8,
        n_voxels=64,
        config_hash="c" * 64,
        data_sha256="d" * 64,
        weights_sha256="",
        time_s=0.25,
        recorded_at=datetime(2025, 1, day, tzinfo=UTC).isoformat(),
        provenance=replace(MADE_BY, seed=seed, profile=profile),
    )


def frame(*given: rows.Row) -> pd.DataFrame:
    """As `rows_file.read_rows` gives them."""
    table = pd.DataFrame.from_records([r.to_record() for r in given], columns=list(rows.SCHEMA))
    table["recorded_at"] = pd.to_datetime(table["recorded_at"], utc=True)
    return table.assign(value=table["value"].astype(float))


def test_new_gone_changed_and_equal_are_told_apart():
    before = frame(made("a", 20.0), made("b", 30.0), made("gone", 1.0), made("same", 5.0))
    after = frame(made("a", 21.0), made("b", 29.5), made("new", 2.0), made("same", 5.0))
    found = changes.changes(before, after)
    assert found.new["subject"].tolist() == ["new"] and found.new["value"].tolist() == [2.0]
    assert found.gone["subject"].tolist() == ["gone"] and found.gone["value"].tolist() == [1.0]
    assert found.changed.set_index("subject")["difference"].to_dict() == {"a": 1.0, "b": -0.5}
    assert found.n_same == 1


@pytest.mark.parametrize(("factor", "n_changed"), [(1 + 5e-7, 0), (1 + 5e-6, 1), (-1, 1)])
def test_a_change_is_relative_to_the_value(factor, n_changed):
    for value in (1e-8, 3e6):
        found = changes.changes(frame(made(value=value)), frame(made(value=value * factor)))
        assert len(found.changed) == n_changed and found.n_same == 1 - n_changed


def test_a_metric_without_a_bound_equals_itself_only():
    none, some = frame(made(value=None)), frame(made(value=50.0))
    assert changes.changes(none, none).n_same == 1
    found = changes.changes(none, some)
    assert len(found.changed) == 1 and np.isnan(found.changed["difference"][0])
    assert "n = 1, 1 with no value on one side" in changes.describe(found)


def test_only_the_newest_row_counts_for_each_profile_and_seed():
    before = frame(made(value=1.0, day=1), made(value=2.0, day=3), made(value=9.0, seed=1))
    after = frame(made(value=2.0, day=4), made(value=7.0, seed=1, day=5), made(profile="gpu"))
    found = changes.changes(before, after)
    assert found.n_same == 1 and found.new["profile"].tolist() == ["gpu"]
    assert found.changed[["seed", "before", "after"]].values.tolist() == [[1, 9.0, 7.0]]


def test_nothing_before_means_everything_is_new_and_the_reverse():
    some, none = frame(made("a"), made("b")), pd.DataFrame(columns=list(rows.SCHEMA))
    assert len(changes.changes(none, some).new) == len(changes.changes(some, none).gone) == 2


def test_the_text_gives_n_mean_and_largest_of_each_arm_and_metric():
    subjects = ("a", "b", "c")
    before = frame(*(made(s, 20.0) for s in subjects), made("a", 0.5, metric="ssim", unit="1"))
    moves = dict(zip(subjects, (0.1, -0.5, 0.1), strict=True))
    after = frame(
        *(made(s, 20 + moves[s]) for s in subjects),
        made("a", 0.75, metric="ssim", unit="1"),
        made("a", arm="cubic"),
        made("b", arm="cubic"),
    )
    assert changes.describe(changes.changes(before, after)).splitlines() == [
        "2 new, 0 gone, 4 changed, 0 equal.",
        "new: reconstruction, 2 measurements of 1 arm",
        "changed: reconstruction, medil, psnr: n = 3, mean -0.1 dB, largest -0.5 dB",
        "changed: reconstruction, medil, ssim: n = 1, mean +0.25, largest +0.25",
    ]


@pytest.fixture
def checkout(tmp_path):
    """A git repository with one commit that holds packed rows and plain ones."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repository" / "results"
    folder.mkdir(parents=True)
    rows_file.append_rows(folder / "one.jsonl", [made("packed", 1.0)])
    packed = gzip.compress((folder / "one.jsonl").read_bytes())
    (folder / "one.jsonl.gz").write_bytes(packed)
    (folder / "one.jsonl").unlink()
    rows_file.append_rows(folder / "one.jsonl", [made("plain", 2.0)])
    rows_file.append_rows(folder / "two.jsonl", [made("other", 3.0, experiment="robustness")])
    nobody = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    for command in (("init", "-q"), ("add", "."), (*nobody, "commit", "-q", "-m", "Rows")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_committed_rows_are_those_of_the_commit_whatever_was_added_since(checkout):
    rows_file.append_rows(checkout / "one.jsonl", [made("plain", 2.5, day=2), made("since")])
    assert changes.committed(checkout)["subject"].tolist() == ["packed", "plain", "other"]
    assert changes.committed(checkout / "one.jsonl")["value"].tolist() == [1.0, 2.0]
    assert changes.committed(checkout / "none.jsonl").empty
    assert changes.summary(checkout).splitlines() == [
        "1 new, 0 gone, 1 changed, 2 equal.",
        "new: reconstruction, 1 measurement of 1 arm",
        "changed: reconstruction, medil, psnr: n = 1, mean +0.5 dB, largest +0.5 dB",
    ]
    assert changes.summary(checkout / "two.jsonl") == "Every row is that of the last commit."


def test_a_folder_that_was_never_committed_is_all_new(checkout):
    folder = checkout / "later"
    folder.mkdir()
    rows_file.append_rows(folder / "one.jsonl", [made()])
    assert changes.summary(folder).startswith("1 new, 0 gone")


def test_without_a_checkout_one_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    rows_file.append_rows(tmp_path / "one.jsonl", [made()])
    assert changes.committed(tmp_path) is None
    assert "no committed rows" in changes.summary(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert changes.committed(tmp_path) is None


def test_the_command_compares_two_folders_and_refuses_an_empty_one(tmp_path, capsys):
    for name, value in (("old", 20.0), ("now", 21.0)):
        (tmp_path / name).mkdir()
        rows_file.append_rows(tmp_path / name / "one.jsonl", [made(value=value)])
    arguments = ["--rows", str(tmp_path / "now"), "--against"]
    assert changes.main([*arguments, str(tmp_path / "old")]) == 0
    assert "mean +1 dB, largest +1 dB" in capsys.readouterr().out
    assert changes.main([*arguments, str(tmp_path / "missing")]) == 2
    assert "no recorded rows" in capsys.readouterr().err
    with pytest.raises(InputError, match="no recorded rows"):
        changes.summary(tmp_path / "missing" / "one.jsonl")
