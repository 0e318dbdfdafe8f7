"""Whole outputs or none, and no job that would not fit in memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medil.errors import InputError
from medil.system.files import atomic_output, check_output, make_folder
from medil.system.memory import require_memory


def test_an_output_appears_at_once_and_whole(tmp_path):
    path = tmp_path / "a.nii.gz"
    with atomic_output(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across disks would copy
        assert temporary.name.endswith("a.nii.gz")  # writers look at the suffix
        temporary.write_text("whole")
        temporary.chmod(0o600)  # as some writers do
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_an_interrupted_output_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_output(path, force=True) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_bad_input_and_not_a_crash(tmp_path):
    with pytest.raises(InputError, match="No space left"), atomic_output(tmp_path / "a") as part:
        part.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_are_refused(tmp_path):
    (tmp_path / "there").write_text("old")
    for path, words in [
        (tmp_path / "missing" / "a", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "there", "force=True"),
        (tmp_path / "there" / "a", "does not exist"),
    ]:
        with pytest.raises(InputError, match=words):
            check_output(path)
    assert check_output(tmp_path / "there", force=True) == tmp_path / "there"


def test_a_folder_is_made_with_its_parents_and_stays(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        make_folder(tmp_path / "file")


def test_a_job_that_does_not_fit_says_voxels_needed_and_free(monkeypatch):
    monkeypatch.setattr("medil.system.memory.free_memory_bytes", lambda: 2_000_000_000)
    require_memory(500_000_000, 4, "this output")  # exactly fits
    with pytest.raises(InputError) as error:
        require_memory(1_000_000_000, 4, "this output")
    for words in ("this output", "1,000,000,000 voxels", "4.0 GB", "2.0 GB is free"):
        assert words in str(error.value)


STOPPABLE = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell may ignore Ctrl-C
from medil.cli import images as verbs
from medil.cli import main
from medil.system.files import atomic_output

def slow(*_, **__):
    with atomic_output(sys.argv[1]) as part:
        part.write_text("half")
        time.sleep(30)

verbs.find_phantom = slow
main(["phantom", "ball", "-o", sys.argv[1]])
"""


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_process_leaves_no_half_written_file(tmp_path, stop, code):
    pytest.importorskip("click", reason="click (extra cli) is not installed")
    arguments = [sys.executable, "-c", STOPPABLE, str(tmp_path / "out.nii")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(arguments, cwd=root, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 60
        while not os.listdir(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
        assert len(os.listdir(tmp_path)) == 1  # the temporary file
        process.send_signal(stop)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_writers_are_removed_and_those_of_live_ones_stay(tmp_path):
    long_ago = time.time() - 60
    dead = tmp_path / ".part-0badcafe-scan.nii.gz"
    other = tmp_path / ".part-0badcafe-mask.nii.gz"
    for path in (dead, other):
        path.write_bytes(b"half")
        os.utime(path, (long_ago, long_ago))
    with atomic_output(tmp_path / "scan.nii.gz") as live:
        os.utime(live, (long_ago, long_ago))
        with atomic_output(tmp_path / "scan.nii.gz") as second:
            second.write_bytes(b"second")
        assert live.exists() and not dead.exists()
        live.write_bytes(b"first")
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, "scan.nii.gz"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs Linux's /proc")
def test_bytes_are_on_the_disk_before_their_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", lambda a, b: calls.append("renamed") or replace(a, b))
    with atomic_output(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert calls == [str(temporary), "renamed", str(tmp_path)]
