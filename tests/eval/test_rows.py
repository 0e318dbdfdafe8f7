"""Recorded rows: complete, append-only, safe for two writers and after a crash."""

from __future__ import annotations

import gzip
import json
import multiprocessing
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest
import torch

from eval import rows, rows_file
from medil.errors import InputError, WriteError
from medil.system import checkout
from tests.images import full_disk


@pytest.fixture
def row() -> rows.Row:
    return rows.Row(
        experiment="reconstruction",
        subject="a",
        arm="dct_ball",
        condition="native -> native",
        metric="psnr",
        value=27.5,
        unit="dB",
        spacing_in_mm="1",
        spacing_out_mm="2",
        numbers_kept=8,
        n_voxels=64,
        config_hash="c" * 64,
        data_sha256="d" * 64,
        weights_sha256="",
        time_s=0.25,
        recorded_at=rows.now_utc(),
        provenance=rows.Provenance.now("quick", seed=3),
    )


def test_a_row_comes_back_as_it_was_with_its_provenance(tmp_path, row):
    path = tmp_path / "r.jsonl"
    assert rows_file.append_rows(path, [row]) == 1
    frame = rows_file.read_rows(path)
    back = frame.iloc[0]
    assert (back.subject, back.arm, back.value, back.seed) == ("a", "dct_ball", 27.5, 3)
    assert back.numbers_per_voxel == 0.125
    assert back.versions["torch"] == version("torch")  # without the build, such as +cu130
    assert back.threads == torch.get_num_threads()
    assert str(back.recorded_at.tz) == "UTC"
    assert rows_file.recorded_identities(path) == {
        ("reconstruction", "a", "dct_ball", "native -> native", "psnr", "c" * 64, "d" * 64, "")
    }


def test_packed_rows_count_before_those_added_since(tmp_path, row):
    path = tmp_path / "r.jsonl"
    assert rows_file.pack(path) is None
    rows_file.append_rows(path, [row])
    assert rows_file.pack(path) == tmp_path / "r.jsonl.gz" and not path.exists()
    assert list(rows_file.read_rows(path)["subject"]) == ["a"]
    rows_file.append_rows(path, [replace(row, subject="b")])
    for place in (path, tmp_path):
        assert list(rows_file.read_rows(place)["subject"]) == ["a", "b"]
    assert {identity[1] for identity in rows_file.recorded_identities(path)} == {"a", "b"}


def test_packing_again_keeps_every_row_in_order_and_the_same_bytes(tmp_path, row):
    path = tmp_path / "r.jsonl"
    for subject in "abc":
        rows_file.append_rows(path, [replace(row, subject=subject)])
        rows_file.pack(path)
    path.write_text('{"torn')  # what a crash left
    packed = rows_file.pack(path)
    rows_file.append_rows(path, [replace(row, subject="d")])
    rows_file.pack(path)
    with pytest.warns(UserWarning, match="line 4 is not a row"):
        assert list(rows_file.read_rows(path)["subject"]) == list("abcd")
    text = gzip.decompress(packed.read_bytes())
    assert packed.read_bytes() == gzip.compress(text, 9, mtime=0)  # no date, no name inside


def test_rows_are_only_ever_added(tmp_path, row):
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, [row])
    before = path.read_bytes()
    rows_file.append_rows(path, [replace(row, value=1.0), replace(row, subject="b")])
    assert path.read_bytes().startswith(before)
    assert list(rows_file.read_rows(path)["value"]) == [27.5, 1.0, 27.5]


def test_no_row_names_this_computer_or_a_path(row):
    import getpass
    import socket
    from pathlib import Path

    text = json.dumps(row.to_record())
    assert socket.gethostname() not in text.split('"')
    assert str(Path.cwd()) not in text and str(Path.home()) + "/" not in text
    assert f'"{getpass.getuser()}"' not in text


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"value": float("nan")}, "value must be finite"),
        ({"value": "27"}, "value cannot be '27'"),
        ({"arm": ""}, "arm must not be empty"),
        ({"numbers_kept": True}, "numbers_kept cannot be True"),
        ({"numbers_kept": 8.0}, "numbers_kept cannot be 8.0"),
        ({"n_voxels": -4}, "at least one voxel"),
        ({"time_s": None}, "time_s cannot be None"),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused_and_nothing_is_written(
    tmp_path, row, change, named
):
    path = tmp_path / "r.jsonl"
    with pytest.raises(InputError, match=named):
        rows_file.append_rows(path, [row, replace(row, **change)])
    assert not path.exists()


@pytest.mark.parametrize("room", [0, 10, 900])
def test_a_full_disk_leaves_the_rows_that_were_there(tmp_path, row, room):
    path = tmp_path / "a.jsonl"
    rows_file.append_rows(path, [row])
    before = path.read_bytes()
    many = [replace(row, subject=name) for name in "bcd"]
    with full_disk(len(before) + room), pytest.raises(WriteError, match="could not be written"):
        rows_file.append_rows(path, many)
    assert path.read_bytes() == before
    assert rows_file.append_rows(path, many) == 3


def test_an_unbounded_metric_is_null_and_reads_as_nan(tmp_path, row):
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, [replace(row, value=None)])
    assert json.loads(path.read_text())["value"] is None
    assert np.isnan(rows_file.read_rows(path)["value"].iloc[0])


def test_unknown_and_missing_fields_are_named(row):
    record = row.to_record()
    del record["seed"]
    record["hostname"] = "x"
    with pytest.raises(InputError, match="hostname, seed"):
        rows.check_record(record)


def test_a_torn_last_line_costs_that_line_alone_and_is_cut_off_with_a_word(tmp_path, row, capsys):
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, [row, replace(row, subject="b")])
    path.write_bytes(path.read_bytes()[:-40])  # a crash in the middle of the second row
    rows_file.append_rows(path, [replace(row, subject="c")])
    assert capsys.readouterr().out.count("r.jsonl ended in half a row") == 1
    assert list(rows_file.read_rows(path)["subject"]) == ["a", "c"]
    path.write_bytes(path.read_bytes()[:-1])  # whole, but for its line break
    rows_file.mend(path)
    assert list(rows_file.read_rows(path)["subject"]) == ["a", "c"]
    assert not capsys.readouterr().out and path.read_bytes().endswith(b"}\n")
    path.write_bytes(b'{"a')
    rows_file.mend(path)
    assert path.read_bytes() == b""


def test_a_changed_byte_of_a_row_costs_that_row_alone(tmp_path, row):
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, [row, replace(row, subject="b")])
    whole = path.read_text()
    path.write_text(whole.replace("27.5", "27.6", 1))
    with pytest.warns(UserWarning, match="line 1 is not a row: it is not what was written"):
        assert list(rows_file.read_rows(path)["subject"]) == ["b"]
    lines = [json.loads(line) for line in whole.splitlines()]
    earlier = [{k: v for k, v in line.items() if k != rows_file.CRC} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in earlier))  # as 0.6.0 wrote them
    assert list(rows_file.read_rows(path)["subject"]) == ["a", "b"]


def test_an_interrupted_append_leaves_the_rows_that_were_there(tmp_path, row, monkeypatch):
    path = tmp_path / "r.jsonl"
    rows_file.append_rows(path, [row])
    before = path.read_bytes()

    def interrupted(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rows_file.os, "fsync", interrupted)
        rows_file.append_rows(path, [replace(row, subject="b")])
    assert path.read_bytes() == before


def _write_many(path, row, name, count):
    for k in range(count):
        rows_file.append_rows(path, [replace(row, subject=f"{name}{k}", metric=m) for m in "xyz"])


def test_two_writers_never_mix_their_lines(tmp_path, row):
    path = tmp_path / "r.jsonl"
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write_many, args=(path, row, name, 40)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    frame = rows_file.read_rows(path)
    assert len(frame) == 240 and len(frame.drop_duplicates(["subject", "metric"])) == 240
    triples = frame["subject"].to_numpy().reshape(80, 3)
    assert (triples == triples[:, :1]).all()  # what one call adds stays together


def test_latest_takes_the_newest_of_each_measurement_whatever_the_order(tmp_path, row):
    path = tmp_path / "r.jsonl"
    new = replace(row, value=2.0, recorded_at="2026-02-01T00:00:00.000000+00:00")
    old = replace(row, value=1.0, recorded_at="2026-01-01T00:00:00.000000+00:00")
    rows_file.append_rows(path, [new, old, replace(old, metric="ssim", unit="1")])
    newest = rows.latest(rows_file.read_rows(path)).set_index("metric")["value"]
    assert newest.to_dict() == {"psnr": 2.0, "ssim": 1.0}


def test_a_folder_reads_as_all_of_its_files(tmp_path, row):
    rows_file.append_rows(tmp_path / "a.jsonl", [row])
    rows_file.append_rows(tmp_path / "b.jsonl", [replace(row, subject="b")])
    assert list(rows_file.read_rows(tmp_path)["subject"]) == ["a", "b"]


def test_missing_rows_and_folders_are_one_sentence(tmp_path, row):
    with pytest.raises(InputError, match=r"no recorded rows at r\.jsonl"):
        rows_file.read_rows(tmp_path / "r.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        rows_file.append_rows(tmp_path / "no" / "r.jsonl", [row])
    assert rows_file.recorded_identities(tmp_path / "r.jsonl") == set()


def test_digests_see_every_change_and_no_order():
    assert rows.digest({"a": 1, "b": [2]}) == rows.digest({"b": [2], "a": 1})
    assert rows.digest({"a": 1}) != rows.digest({"a": 2})
    values, affine = np.arange(6.0).reshape(1, 2, 3), np.eye(4)
    same = rows.array_digest(values, affine)
    assert same == rows.array_digest(values.copy(order="F"), affine)
    assert same != rows.array_digest(values, 2 * affine)
    assert same != rows.array_digest(values.reshape(1, 3, 2), affine)


@pytest.mark.parametrize(
    ("told", "commit", "dirty"), [("abc123", "abc123", False), ("f00+", "f00", True)]
)
def test_a_copy_without_history_is_told_its_commit(told, commit, dirty, monkeypatch):
    monkeypatch.setenv("MEDIL_COMMIT", told)
    checkout.checkout.cache_clear()
    found = rows.Provenance.now("quick")
    assert (found.commit, found.dirty) == (commit, dirty) and checkout.commit() == told
    checkout.checkout.cache_clear()  # what it was told goes with the test
