"""`medil train` under torchrun: from a store, in agreement, repeatable."""

import subprocess
import sys

import pytest

from eval.machines import trials
from medil.model.weights import load_model, weights_sha256

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")


PROGRAM = """
import os
import sys
from pathlib import Path
from medil.model.weights import weights_sha256
from medil.training.autoencoder import AutoencoderLearner
from medil.training.start import start
out, store, batch = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
changes = {"train.batch": batch, "train.steps": 3, "train.bf16": False, "data.real_share": 1}
ema = start(AutoencoderLearner, out, "test", changes, source=store, device="cpu")
Path(f"{out}.{os.environ['RANK']}").write_text(weights_sha256(ema))
"""
RUN_FILES = {
    "config.json", "log.jsonl", "state.earlier.safetensors", "state.safetensors", "store.txt",
    "weights.safetensors",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_ranks_agree_repeat_and_equal_one_process(tmp_path, count):
    raw, store = trials.write_scans(tmp_path / "raw", 3), tmp_path / "store"
    trials.medil("store", str(raw), "-o", str(store)).check_returncode()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    for name in ("first", "second"):
        out = tmp_path / name
        command = [*launcher, "--nproc-per-node", str(count), program, out, store, "4"]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert RUN_FILES <= {path.name for path in out.iterdir()} <= RUN_FILES | {"tensorboard"}
    digests = {path.read_text() for path in tmp_path.glob("*.[0-9]")}
    assert len(list(tmp_path.glob("*.[0-9]"))) == 2 * count and len(digests) == 1
    ids = {
        weights_sha256(load_model(tmp_path / n / "weights.safetensors"))
        for n in ("first", "second")
    }
    assert len(ids) == 1
    alone = tmp_path / "alone"
    more = ["--batch", "4", "--steps", "3"]
    trials.medil(*trials.run_arguments(store, alone), *more).check_returncode()
    assert trials.difference(tmp_path / "first", alone) < 1e-5
