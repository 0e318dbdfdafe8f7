"""`medil.system.tensors`: files of tensors come back whole or are refused."""

from __future__ import annotations

import os
import resource
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medil.errors import InputError, WriteError
from medil.formats import Format
from medil.system.tensors import DIGEST, read_tensors, write_tensors
from tests.images import full_disk

OWN = Format("a", 1, "a toy")
META = {"format": str(OWN), "facts": '{"steps": 3}'}


@pytest.fixture
def tensors(rng):
    values = torch.from_numpy(rng.normal(size=(3, 4, 5)))
    return {
        "a": values.half(),
        "b": values.permute(2, 1, 0),
        "c": torch.arange(3),
        "same": values.permute(2, 1, 0),
    }


def test_tensors_and_metadata_come_back(tmp_path, tensors):
    path = write_tensors(tmp_path / "a.safetensors", tensors, META)
    again, meta = read_tensors(path, OWN)
    assert meta == META and again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    with safe_open(path, framework="pt") as file:
        assert len(file.metadata()[DIGEST]) == 64


def test_a_writer_that_is_killed_leaves_what_the_next_one_removes(tmp_path, tensors, monkeypatch):
    path = tmp_path / "a.safetensors"
    if not (child := os.fork()):
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the system kills who writes too much
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with full_disk(500):
            write_tensors(path, tensors, META)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGXFSZ
    assert [one.name[:6] for one in tmp_path.iterdir()] == [".part-"]
    monkeypatch.setattr("medil.system.files.SETTLED_S", -1.0)
    write_tensors(path, tensors, META)
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_are_repeated_in_memory_are_written_as_they_read(tmp_path):
    one = torch.tensor(2.5)
    repeated = {"one": one.expand(1), "many": one.expand(4), "half": one.bfloat16().expand(1)}
    again, _ = read_tensors(write_tensors(tmp_path / "a.safetensors", repeated, META), OWN)
    assert all(torch.equal(again[name], repeated[name]) for name in repeated)


def test_no_changed_byte_of_a_file_passes(tmp_path, tensors, rng):
    path = write_tensors(tmp_path / "a.safetensors", tensors, META)
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), 100):
        damaged = bytearray(whole)
        damaged[place] ^= 1 + rng.integers(255)
        path.write_bytes(damaged)
        try:
            again, meta = read_tensors(path, OWN)
        except (InputError, UnicodeDecodeError) as error:
            assert isinstance(error, InputError)
        else:  # the name of the digest itself, which old files lack, or padding
            assert {**meta, DIGEST: ""}.keys() >= META.keys()
            assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_a_file_without_a_digest_is_read(tmp_path, tensors):
    whole = {"a": tensors["a"]}
    save_file(whole, tmp_path / "old.safetensors", META)
    assert torch.equal(read_tensors(tmp_path / "old.safetensors", OWN)[0]["a"], tensors["a"])


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04pickle"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="not a whole safetensors file"):
        read_tensors(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="not a file"):
        read_tensors(tmp_path / "none.safetensors")


def test_another_format_is_refused(tmp_path, tensors):
    path = write_tensors(tmp_path / "a.safetensors", tensors, META)
    with pytest.raises(InputError, match="needed here"):
        read_tensors(path, Format("b", 1, "another one"))


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path, tensors):
    path = write_tensors(tmp_path / "a.safetensors", tensors, META)
    old = path.read_bytes()
    with full_disk(100), pytest.raises(WriteError, match=r"could not be written: .*\.$"):
        write_tensors(path, tensors, META, force=True)
    assert path.read_bytes() == old and list(tmp_path.iterdir()) == [path]
