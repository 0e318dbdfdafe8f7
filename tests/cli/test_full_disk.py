"""A full disk: one sentence, exit code 2, and nothing half-written."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.images import full_disk, head

pytest.importorskip("click", reason="click (extra cli) is not installed")


def refused_by_the_disk(result, folder, before):
    code, _, err = result
    lines = [line for line in err.splitlines() if line.startswith("medil: ")]
    assert code == 2 and len(lines) == 1 and "Traceback" not in err
    assert "File too large" in lines[0] and lines[0].endswith(".")
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("most_bytes", [0, 400])
@pytest.mark.parametrize(
    "verb",
    [("encode", "a.safetensors"), ("reconstruct", "a.nii.gz"), ("reconstruct", "a.nii"),
     ("reconstruct", "a.mgz"), ("reconstruct", "a.nrrd")],
)  # fmt: skip
def test_an_image_that_cannot_be_written(run_medil, scan, tmp_path, verb, most_bytes):
    before = [scan]
    with full_disk(most_bytes):
        result = run_medil(verb[0], scan, "-o", tmp_path / verb[1])
    refused_by_the_disk(result, tmp_path, before)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("verb", "suffix"),
    [("encode", ".safetensors"), ("reconstruct", ".nii"), ("convert", ".nrrd"),
     ("store", ""), ("preprocess", "")],
)  # fmt: skip
def test_a_disk_that_takes_no_new_file(run_medil, scan, verb, suffix):
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    code, _, err = run_medil(verb, scan, "-o", f"/proc/medil{suffix}")
    assert code == 2 and err.count("medil: ") == 1 and "Traceback" not in err
    assert err.startswith(f"medil: /proc/medil{suffix} ")  # could not be written, has no room


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_rendering_that_the_disk_ends_is_closed_in_silence(run_medil, scan, tmp_path):
    with full_disk(3000):
        result = run_medil("reconstruct", scan, "-o", tmp_path / "a.nii.gz")
    refused_by_the_disk(result, tmp_path, [scan])


@pytest.mark.parametrize("most_bytes", [0, 300, 2000])
def test_a_store_stops_at_once_and_keeps_whole_volumes(run_medil, tmp_path, most_bytes):
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.volume import save

    for k in range(3):
        save(head(seed=k), tmp_path / f"{k}.nii.gz")
    before = sorted(tmp_path.iterdir())
    with full_disk(most_bytes):
        code, _, err = run_medil("store", *before, "-o", tmp_path / "store")
    assert code == 2 and err.count("medil: ") == 1 and err.count("File too large") == 1
    assert not list((tmp_path / "store").glob("[!z]*"))  # no volume, and no part of one
    assert run_medil("store", *before, "-o", tmp_path / "store")[0] == 0


def test_asking_for_the_commit_leaves_the_index_alone():
    from medil.system.checkout import checkout

    root = Path(__file__).parents[2]
    call = ("git", "-C", root, "rev-parse", "--path-format=absolute", "--git-path", "index")
    try:
        done = subprocess.run(call, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    index = Path(done.stdout.strip())
    before = index.stat()
    os.utime(root / "LICENSE")  # git would note the new time of the same bytes in its index
    with full_disk(3000):
        checkout.__wrapped__()
    assert index.stat().st_mtime_ns == before.st_mtime_ns
    assert not index.with_name("index.lock").exists()


def test_a_run_that_cannot_save_its_state(run_medil, tmp_path):
    pytest.importorskip("lightning_fabric", reason="lightning-fabric (extra train) is missing")
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    from medil.volume import save

    save(head(), tmp_path / "a.nii.gz")
    assert run_medil("store", tmp_path / "a.nii.gz", "-o", tmp_path / "store")[0] == 0
    options = ("--preset", "test", "--steps", 1, "--real-share", 1, "--store", tmp_path / "store")
    with full_disk(20_000):
        result = run_medil("train", *options, "-o", tmp_path / "run")
    run = tmp_path / "run"
    whole = sorted(p for p in run.rglob("*") if p.is_file())
    refused_by_the_disk(result, run, whole)
    assert {p.name for p in whole} <= {"config.json", "store.txt"}
    assert run_medil("train", *options, "-o", run)[0] == 0


def test_a_report_that_cannot_be_begun(tmp_path, capsys):
    pytest.importorskip("pandas", reason="pandas (extra eval) is not installed")
    from eval.evaluate import EXPERIMENT
    from medil.volume import save

    save(head(), tmp_path / "a.nii.gz")
    with full_disk():
        code = EXPERIMENT.main([str(tmp_path / "a.nii.gz"), "--out", str(tmp_path / "report")])
    assert code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith("written: File too large.")
    assert not [p for p in (tmp_path / "report").rglob("*") if p.is_file()]


def _write_into(verb, folder, scan):
    """Call a verb, or `python -m eval.evaluate`, to write into a folder."""
    from medil.cli import run

    if verb == "evaluate":
        from eval.evaluate import EXPERIMENT

        return EXPERIMENT.main([str(scan), "--out", str(folder)])
    if verb == "train":
        options = ["--preset", "test", "--steps", "1", "--real-share", "1"]
        return run(["train", *options, "--store", str(folder.parent / "store"), "-o", str(folder)])
    return run(
        [verb, str(scan), "-o", str(folder / "a.safetensors" if verb == "encode" else folder)]
    )


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's capabilities")
@pytest.mark.parametrize("verb", ["encode", "store", "train", "evaluate"])
def test_a_folder_that_may_not_be_written_to(run_medil, scan, tmp_path, verb):
    pytest.importorskip("zarr", reason="zarr (extra store) is not installed")
    pytest.importorskip("lightning_fabric", reason="lightning-fabric (extra train) is missing")
    pytest.importorskip("pandas", reason="pandas (extra eval) is not installed")
    from eval.reliability.child import start
    from eval.reliability.injections import locked, without_privileges
    from eval.reliability.judge import is_one_sentence
    from medil.volume import save

    run_medil("store", scan, "-o", tmp_path / "store")
    whole, out = save(head(), tmp_path / "head.nii.gz"), tmp_path / "out"
    out.mkdir()
    with locked(out):
        ended = start(partial(_write_into, verb, out, whole), out, without_privileges).wait()
    assert ended.code == 2 and is_one_sentence(ended.said), ended.said
    assert "may not be written to" in ended.said or "Permission denied" in ended.said
    assert not list(out.iterdir())
