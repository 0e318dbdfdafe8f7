import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from medil.checksums import without_sum
from medil.cli.options import load_weights
from medil.config import RunConfig
from medil.errors import InputError
from medil.model.rivals import build
from medil.model.weights import load_model, short_digest, weights_sha256
from medil.training import launch as processes
from medil.training.autoencoder import AutoencoderLearner
from medil.training.log import keep_until
from medil.training.run import Run, train
from medil.training.state import read_facts
from tests.run_training import block_scans, config_of, run

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
from safetensors.torch import load_file, save_file

MODULE = [sys.executable, "-m", "tests.run_training"]


def state(folder):
    return load_file(folder / "state.safetensors")


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# A run from start to end


def test_a_run_learns_and_leaves_a_usable_folder(tmp_path):
    run(tmp_path, steps=40, learning_rate=2e-3, warmup_steps=5, ema_decay=0.8, bf16=True)
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == list(range(1, 41))
    assert max(row["gain_db"] for row in rows[20:]) > 0  # better than the closed form it is given
    assert rows[0]["learning_rate"] == pytest.approx(2e-3 / 5)
    assert all(row["voxels_per_s"] > 0 for row in rows) and rows[-1]["eta_s"] == 0
    config = RunConfig.from_json((tmp_path / "config.json").read_text())
    assert config.train.steps == 40 and config.train.learning_rate == 2e-3
    model = load_model(tmp_path / "weights.safetensors", preset="test")
    assert model.facts["step"] == 40 and model.facts["seed"] == 0
    assert model.facts["voxels"] == rows[-1]["voxels"]
    (call,) = model.facts["calls"]
    assert call["processes"] == 1 and call["torch"] == torch.__version__ and call["device"]


def test_a_run_of_minutes_ends_when_they_are_over(tmp_path):
    run(tmp_path, minutes=0.01, save_every=100)
    rows = log(tmp_path)
    assert rows[-1]["elapsed_s"] >= 0.6
    assert all(row["elapsed_s"] < 0.6 for row in rows[:-1])  # a slow machine may log one step
    assert [row["progress"] for row in rows] == sorted(row["progress"] for row in rows)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        run(tmp_path / name, steps=3, seed=seed)
    assert_same_state(state(tmp_path / "a"), state(tmp_path / "b"))
    weights = [load_model(tmp_path / n / "weights.safetensors").weights_id for n in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_curves_reach_tensorboard_once_a_step(tmp_path):
    event = pytest.importorskip("tensorboardX.proto.event_pb2")
    run(tmp_path, steps=3)
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, place, seen = path.read_bytes(), 0, {}
    while place < len(data):  # TFRecord: length, its checksum, the event, its checksum
        length = int.from_bytes(data[place : place + 8], "little")
        parsed = event.Event.FromString(data[place + 12 : place + 12 + length])
        for value in parsed.summary.value:
            seen.setdefault(value.tag, []).append((parsed.step, value.simple_value))
        place += length + 16
    assert {"loss", "psnr_db", "gain_db", "learning_rate", "voxels_per_s"} <= set(seen)
    assert seen["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in log(tmp_path)]


def test_a_run_goes_on_without_tensorboard_and_says_so(tmp_path, monkeypatch, capsys):
    def missing(*args, **kwargs):
        raise ModuleNotFoundError

    monkeypatch.setattr("lightning_fabric.loggers.TensorBoardLogger", missing)
    run(tmp_path, steps=1)
    assert "medil-book[train]" in capsys.readouterr().out
    assert len(log(tmp_path)) == 1 and not (tmp_path / "tensorboard").exists()


def test_a_disk_that_refuses_the_curves_costs_them_alone(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise ValueError("you tried to log")

    monkeypatch.setattr("lightning_fabric.loggers.TensorBoardLogger.log_metrics", refuse)
    run(tmp_path, steps=2)
    assert capsys.readouterr().out.count("no more TensorBoard curves") == 1
    assert len(log(tmp_path)) == 2 and (tmp_path / "weights.safetensors").is_file()


# Stopped, killed, resumed


def test_a_killed_run_ends_bitwise_as_one_that_never_stopped(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run(straight, steps=10, save_every=3)
    asked = {"out": str(killed), "steps": 10, "save_every": 3, "wait_s": 0.1}
    process = subprocess.Popen([*MODULE, json.dumps(asked)], stderr=subprocess.DEVNULL)
    rows = killed / "log.jsonl"
    while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") >= 5):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL  # it was still under way
    assert not (killed / "weights.safetensors").exists()
    assert 5 <= len(log(killed)) < 10
    run(killed, steps=10, save_every=3, resume=True)
    assert_same_state(state(straight), state(killed))
    kept = [(row["step"], row["loss"]) for row in log(killed)]
    assert kept == [(row["step"], row["loss"]) for row in log(straight)]
    first, second = load_model(killed / "weights.safetensors").facts["calls"]
    assert first["step"] == 0 and 3 <= second["step"] < 10


def test_short_time_budgets_add_up_to_the_same_run(tmp_path):
    run(tmp_path / "whole", steps=3)
    for call in range(3):
        run(tmp_path / "parts", steps=3, resume=call > 0, call={"time_budget_s": 0})
        assert [row["step"] for row in log(tmp_path / "parts")] == list(range(1, call + 2))
    assert_same_state(state(tmp_path / "whole"), state(tmp_path / "parts"))


def test_a_run_of_release_0_6_0_is_resumed(tmp_path):
    run(tmp_path, steps=4, call={"time_budget_s": 0})
    path, config = tmp_path / "state.safetensors", tmp_path / "config.json"
    facts = read_facts(path)
    facts["share"] = facts.pop("progress")  # as it was called
    meta = {"format": "medil-training-2", "progress": json.dumps(facts)}
    save_file(load_file(path), path, meta)
    raw = without_sum(json.loads(config.read_text()))  # it had none
    raw["data"]["renew_every"] = 0
    config.write_text(json.dumps(raw))
    assert read_facts(path)["progress"] == facts["share"] == 0.25
    run(tmp_path, steps=4, resume=True)
    run(tmp_path / "straight", steps=4)
    assert_same_state(state(tmp_path), state(tmp_path / "straight"))
    assert RunConfig.from_json(config.read_text()) == config_of(steps=4)


def test_a_damaged_state_names_the_one_before_it_from_which_the_run_goes_on(tmp_path):
    run(tmp_path, steps=2, save_every=1)
    whole = {name: value.clone() for name, value in state(tmp_path).items()}  # no mapped file
    newest, earlier = tmp_path / "state.safetensors", tmp_path / "state.earlier.safetensors"
    assert (read_facts(newest)["step"], read_facts(earlier)["step"]) == (2, 1)
    damaged = bytearray(newest.read_bytes())
    damaged[-7] ^= 1
    newest.write_bytes(damaged)
    said = "is damaged: .*; state.earlier.safetensors, of step 1, is whole: delete state.safetenso"
    with pytest.raises(InputError, match=said):
        run(tmp_path, steps=2, resume=True)
    newest.unlink()
    run(tmp_path, steps=2, save_every=1, resume=True)
    assert_same_state(state(tmp_path), whole)
    earlier.write_bytes(b"half")
    newest.write_bytes(b"half")
    with pytest.raises(InputError, match="no earlier state is whole, so begin a new run"):
        run(tmp_path, steps=3, resume=True)


def test_the_state_is_saved_by_the_clock_where_steps_take_long(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("medil.training.run.SAVE_S", 0.0)
    monkeypatch.setattr(Run, "save", lambda self: steps.append(self.facts["step"]))
    run(tmp_path, steps=2, save_every=100)
    assert steps == [0, 1, 2, 2]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_ends_the_step_saves_and_says_how_to_resume(tmp_path, capsys, name):
    number = getattr(signal, name)

    class Signalled(AutoencoderLearner):
        def draw(self, seed, step, stage):
            if step == 2:
                os.kill(os.getpid(), number)
            return super().draw(seed, step, stage)

    before = signal.signal(number, signal.SIG_IGN)  # as shells do for background jobs
    try:
        train(Signalled(config_of(steps=4), block_scans()), tmp_path)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert log(tmp_path)[-1]["step"] == 3  # the step in which it came was finished
    said = capsys.readouterr().out
    assert name in said and f"medil train --resume -o {tmp_path}" in said
    assert load_model(tmp_path / "weights.safetensors").facts["step"] == 3
    run(tmp_path, steps=4, resume=True)
    assert [row["step"] for row in log(tmp_path)] == [1, 2, 3, 4]


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), processes.Interruption() as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.name == "SIGINT"
        os.kill(os.getpid(), signal.SIGTERM)  # not a second Ctrl-C
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before  # ignored, in a job that a shell put behind


def test_a_bad_step_stops_the_run_names_the_scan_and_keeps_the_last_state(tmp_path):
    good = block_scans()[:1]
    bad = [replace(good[0], data=good[0].data * float("nan"), name="subject007")]

    class Spoilt(AutoencoderLearner):
        def draw(self, seed, number, stage):
            self.scans = bad if number == 3 else good
            return super().draw(seed, number, stage)

    with pytest.raises(InputError, match=r"step 3 failed: the loss is nan .* on subject007"):
        train(Spoilt(config_of(steps=9), good), tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()
    assert all(v.isfinite().all() for v in state(tmp_path).values())
    train(AutoencoderLearner(config_of(steps=5), good), tmp_path, resume=True)
    assert log(tmp_path)[-1]["step"] == 5


def test_an_adversary_goes_on_where_it_was(tmp_path):
    pytest.importorskip("monai", reason="needs the extra `rivals`")
    settings = {"steps": 3, "adversarial_weight": 0.01, "adversarial_after": 0.3}
    run(tmp_path / "straight", **settings)
    run(tmp_path / "parts", call={"time_budget_s": 0}, **settings)
    for _ in range(2):
        run(tmp_path / "parts", resume=True, call={"time_budget_s": 0}, **settings)
    one = state(tmp_path / "straight")
    assert any(name.startswith("adversary.optimiser") for name in one)
    assert_same_state(one, state(tmp_path / "parts"))


def test_a_log_keeps_no_step_that_was_lost(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 26}\n{"step": 51}\n{"st')
    keep_until(path, 26)
    assert path.read_text() == '{"step": 1}\n{"step": 26}\n'


# Several processes


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path):
    settings = {"steps": 20, "batch": 2, "warmup_steps": 1}
    run(tmp_path / "one", **settings)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = {"out": str(tmp_path / "two"), "processes": 2, **settings}
    command = [sys.executable, *launcher, "-m", "tests.run_training", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    torch.manual_seed(0)
    start = {f"model.{k}": v for k, v in build(config_of().model).state_dict().items()}
    assert max((one[k] - v).abs().max() for k, v in start.items()) > 1e-3  # it went somewhere
    for name in one:
        if name.startswith(("model.", "ema.")):
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5, msg=name)
    assert log(tmp_path / "two")[-1]["loss"] == pytest.approx(log(tmp_path / "one")[-1]["loss"])


def test_a_batch_must_fall_into_equal_parts():
    settings = config_of(batch=6, accumulate=3).train
    processes.check_batch(settings, 2)
    with pytest.raises(InputError, match=r"batch of 6 .* 4 processes"):
        processes.check_batch(settings, 4)


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, (1, 1)),
        ({"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
        ({"SLURM_NTASKS": "6", "SLURM_NNODES": "3"}, (2, 3)),
        ({"SLURM_NNODES": "1"}, (1, 1)),
    ],
)
def test_torchrun_and_slurm_say_how_many_processes_there_are(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.started_processes() == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said_in_a_sentence():
    with pytest.raises(InputError, match="device=cpu"):
        processes.launch(1, "cuda")


# The command


@pytest.fixture
def train_verb(run_medil, monkeypatch, tmp_path):
    scans = "medil.training.autoencoder.training_scans"
    monkeypatch.setattr(scans, lambda *settings, **options: block_scans())
    return lambda *more: run_medil("train", "-o", tmp_path / "run", *more)


def test_the_verb_trains_refuses_and_resumes(train_verb, tmp_path):
    code, out, _ = train_verb("--preset", "test", "--steps", 2, "--time-budget", "0.001s")
    assert code == 0 and "--resume" in out
    for options, words in (
        (["--preset", "test"], "holds a run already"),
        (["--resume", "--preset", "tiny"], "has preset test, not tiny"),
        (["--resume", "--steps", 1], "has train.steps 2, not 1"),
        (["--resume", "--seed", 1], "has seed 0, not 1"),
        (["--resume", "--from", tmp_path / "w"], "own weights"),
        (["--resume", "--minutes", 1, "--steps", 2], "name only one"),
        (["--resume", "--time-budget", "soon"], "no time budget"),
    ):
        code, _, err = train_verb(*options)
        assert code == 2 and words in err and err.count("\n") == 1, err
    assert train_verb("--resume")[0] == 0
    config = RunConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert config.preset == "test" and config.train.steps == 2
    model = load_model(tmp_path / "run" / "weights.safetensors")
    assert model.facts["step"] == 2 and len(model.facts["calls"]) == 2


def test_a_finished_run_may_be_given_more_steps(train_verb, tmp_path):
    assert train_verb("--preset", "test", "--steps", 2)[0] == 0
    assert train_verb("--resume", "--steps", 3)[0] == 0
    config = RunConfig.from_json((tmp_path / "run" / "config.json").read_text())
    model = load_model(tmp_path / "run" / "weights.safetensors")
    assert config.train.steps == model.facts["step"] == 3
    code, _, err = train_verb("--resume", "--minutes", 9)
    assert code == 2 and "has train.minutes" in err  # its length is given in steps


def test_a_damaged_configuration_is_refused_in_a_sentence():
    for text in ("{", "[]", "3", '{"model": 3}'):
        with pytest.raises(InputError, match="not a configuration of this version"):
            RunConfig.from_json(text)


@pytest.mark.parametrize("damage", [(b'"clip_norm": 1.0', b'"clip_norm": 3.0'), (b"}", b"\xff")])
def test_a_changed_byte_of_the_configuration_is_found_on_resume(train_verb, tmp_path, damage):
    assert train_verb("--preset", "test", "--steps", 1)[0] == 0
    path = tmp_path / "run" / "config.json"
    whole = path.read_bytes()
    assert whole.count(damage[0]) >= 1
    path.write_bytes(whole.replace(*damage))
    code, _, err = train_verb("--resume", "--steps", 2)
    assert code == 2 and str(path) in err and "restore that file, or begin a new run." in err
    path.write_bytes(whole)
    assert train_verb("--resume", "--steps", 2)[0] == 0


def test_nothing_to_resume_is_refused(train_verb, tmp_path):
    assert "no run to resume" in train_verb("--resume")[2]
    (tmp_path / "run").mkdir()
    assert "no run to resume" in train_verb("--resume")[2]


def test_a_run_may_begin_from_the_weights_of_another(train_verb, tmp_path):
    run(tmp_path / "first", steps=3, seed=5)
    weights = tmp_path / "first" / "weights.safetensors"
    assert train_verb("--preset", "test", "--steps", 1, "--from", weights)[0] == 0
    first, second = load_model(weights), load_model(tmp_path / "run" / "weights.safetensors")
    earlier = second.facts["earlier"]
    assert earlier["weights"] == short_digest(weights_sha256(first)) and earlier["seed"] == 5
    assert second.facts["step"] == 1 and earlier["step"] == 3
    for name, value in first.state_dict().items():  # a step of warm-up moves little
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=1e-3)
    other = replace(config_of(steps=1), model=replace(config_of().model, width_fine=8))
    with pytest.raises(InputError, match="another model"):
        train(AutoencoderLearner(other, block_scans()), tmp_path, warm_start_from=weights)


def test_a_rival_trains_in_the_same_engine(tmp_path):
    pytest.importorskip("monai", reason="needs the extra `rivals`")
    model = replace(config_of().model, architecture="conv")
    config = replace(config_of(steps=1), model=model)
    train(AutoencoderLearner(config, block_scans()), tmp_path)
    weights = tmp_path / "weights.safetensors"
    assert load_model(weights).config == model
    with pytest.raises(InputError, match="rival 'conv'"):
        load_weights(None, weights)
