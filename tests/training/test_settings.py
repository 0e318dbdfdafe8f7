"""`--config` and `--set`: any setting of a run, new or resumed, and a pitch of one's own."""

import pytest
import torch

from medil.config import RunConfig
from medil.diffusion import latents as head_latents
from medil.diffusion.latents import latent_box
from medil.diffusion.training import load_flow
from medil.latent import Latent
from medil.model.weights import load_model
from medil.volume import load
from tests.images import LABELS_ORIGIN_MM, refused, toy_labels, write_nifti
from tests.run_training import block_scans

pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
pytest.importorskip("click", reason="needs the extra `cli`")
PITCH = "--set", "model.latent_spacing_mm=3"
LEARNED = *PITCH, "model.latent_channels=12", "model.closed_form=no"


@pytest.fixture
def train(run_medil, monkeypatch, tmp_path):
    """`medil train` of the test preset on blocks that are made here."""
    scans = "medil.training.autoencoder.training_scans"
    monkeypatch.setattr(scans, lambda *settings, **options: block_scans())

    def run(*more, out="run"):
        return run_medil("train", "--preset", "test", "-o", tmp_path / out, *more)

    return run


def config_of(folder):
    return RunConfig.from_json((folder / "config.json").read_text())


def test_settings_come_from_a_file_then_from_the_command(train, tmp_path):
    file = tmp_path / "mine.json"
    file.write_text('{"preset": "test", "train": {"steps": 9, "batch": 2}, "model": {"hidden": 8}}')
    more = "--set", "train.batch=4", "train.patch_sides_mm=16,24", "--set", "train.accumulate=2"
    assert train("--config", file, "--steps", 1, *more)[0] == 0
    config = config_of(tmp_path / "run")
    assert config.model.hidden == 8 and config.train.steps == 1
    assert (config.train.batch, config.train.accumulate) == (4, 2)
    assert config.train.patch_sides_mm == (16, 24)
    assert train("--config", tmp_path / "run" / "config.json", out="again")[0] == 0
    assert config_of(tmp_path / "again") == config
    assert train("--config", file, "--minutes", 0.001, out="timed")[0] == 0
    assert config_of(tmp_path / "timed").train.steps == 0


def test_a_resumed_run_keeps_its_settings(train, tmp_path):
    assert train("--steps", 1, "--set", "train.batch=2")[0] == 0
    own = tmp_path / "run" / "config.json"
    resume = "--resume", "--steps", 2
    refused(train(*resume, "--set", "train.batch=3"), "has train.batch 2, not 3")
    refused(train(*resume, *PITCH), "has model.latent_spacing_mm 4.0, not 3.0")
    refused(train(*resume, "--set", "train.bach=2"), "nearest one is 'train.batch'")
    assert train("--resume", "--config", own, "--set", "train.batch=2", "train.steps=3")[0] == 0
    assert config_of(tmp_path / "run").train.steps == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "model.latent_spacing=3"], "nearest one is 'model.latent_spacing_mm'"),
        (["--set", "model.latent_channels=12"], "closed-form encoder fills"),
        (["--set", "train.batch"], "not of the form name=value"),
        (["--set", "train.batch=2", "train.batch=4"], "set twice"),
        (["--set", "train.batch=2", "--batch", 2], "name the same setting"),
        (["--set", "train.batch=many"], "is a whole number, not 'many'"),
        (["--set", "train.spectral_weight=0.1"], "spectral_weight belongs to a loss"),
        (["--config", "gone.json"], "could not be read"),
        (["--set", "preset=tiny"], "is of preset 'tiny', not 'test'"),
    ],
)
def test_bad_settings_are_refused_and_leave_nothing(train, tmp_path, options, words):
    refused(train("--steps", 1, *options), words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting",
    ["perceptual_weight=0.1", "adversarial_weight=0.1", "loss=l1", "loss=charbonnier"],
)
def test_every_loss_can_be_tried(train, tmp_path, monkeypatch, setting):
    class Distance(torch.nn.Module):
        def forward(self, one, other):
            return (one - other).square().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setattr("medil.training.losses.alexnet_lpips", Distance)
    if setting.startswith("adversarial"):
        pytest.importorskip("monai", reason="needs the extra `rivals`")
    choice = "--set", f"train.{setting}", "train.adversarial_after=0"
    assert train("--steps", 3, *choice)[0] == 0
    assert train("--steps", 3, out="plain")[0] == 0
    with_it, plain = (load_model(tmp_path / n / "weights.safetensors") for n in ("run", "plain"))
    assert with_it.weights_id != plain.weights_id and with_it.facts["step"] == 3


# Another pitch, from training to samples


@pytest.fixture
def heads(monkeypatch, tmp_path):
    """A toy label map on which heads are drawn, at voxels of 4 mm."""
    labels = toy_labels(torch.tensor([2.0, 3.0, 1.0]).numpy(), 7.0)
    affine = torch.eye(4).numpy()
    affine[:3, 3] = LABELS_ORIGIN_MM
    path = write_nifti(tmp_path / "toy.nii.gz", labels, affine)
    monkeypatch.setattr(head_latents, "label_map_paths", lambda split: [path])
    monkeypatch.setattr(head_latents, "head_spacing_mm", lambda seed, index: 4.0)


@pytest.mark.parametrize("settings", [PITCH, LEARNED], ids=["closed form", "12 channels"])
def test_another_pitch_trains_and_is_sampled(settings, train, heads, run_medil, tmp_path):
    for name in ("monai", "einops"):
        pytest.importorskip(name, reason="needs the extra `sample`")
    assert train("--steps", 2, *settings, out="auto")[0] == 0
    weights = tmp_path / "auto" / "weights.safetensors"
    model = load_model(weights)
    channels = 12 if settings is LEARNED else 8
    assert (model.config.latent_spacing_mm, model.config.latent_channels) == (3.0, channels)

    flow = tmp_path / "flow"
    verb = "train-ldm", "--preset", "test", "-o", flow
    sizes = "--heads", 2, "--set", "model.channels=16,16", "train.bf16=no"
    code, _, err = run_medil(*verb, "--autoencoder", weights, "--steps", 1, *sizes)
    assert code == 0, err
    learned = load_flow(flow / "weights.safetensors")
    assert learned.known.autoencoder_id == model.weights_id
    assert learned.known.grid == latent_box(3.0) and len(learned.std) == channels
    code, _, err = run_medil(*verb, "--resume", "--steps", 2)  # the folder holds the autoencoder
    assert code == 0, err
    refused(run_medil(*verb, "--resume", "--autoencoder", flow / "weights.safetensors"), "needed")
    assert train("--steps", 1, out="other")[0] == 0
    other = tmp_path / "other" / "weights.safetensors"
    refused(run_medil(*verb, "--resume", "--autoencoder", other), "another autoencoder")

    sample = "sample", "--weights", flow / "weights.safetensors", "--steps", 2
    out = tmp_path / "out"
    code, _, err = run_medil(*sample, "-o", out, "--latents", "--spacing", 6, 6, 6)
    assert code == 0, err
    latent = Latent.load(out / "sample_0000.safetensors")
    assert latent.grid == latent_box(3.0) and latent.mean.shape[0] == channels
    assert torch.isfinite(load(out / "sample_0000.nii.gz").data).all()
    refused(run_medil(*sample, "-o", out, "--force", "--autoencoder", other), "belong together")
    if settings is LEARNED:
        slabs = "--like", out / "sample_0000.nii.gz"
        refused(run_medil(*sample, "-o", tmp_path / "like", *slabs), "with the closed form")
