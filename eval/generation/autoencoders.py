"""The autoencoders under comparison, trained alike: same heads, steps, size and seed.

All learn both encoder and decoder: with the closed-form shortcut they would share one latent,
and the effect of the autoencoder on the samples could not be measured. The releases, trained
longer and with the shortcut, are shown beside them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from eval.ablation.blocks import VERSION as HEADS_VERSION
from eval.ablation.training import TRAIN_SEED, training_heads
from eval.arms.catalogue import ARMS, LEARNED
from eval.arms.train import recipe, train_arm
from eval.rows import digest
from medil.config import RunConfig
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, load_release, save_weights

FOLDER = Path("_build/generation")
RELEASE, BASE, ANATOMY = "release", "base", "anatomy"
RELEASED = {RELEASE: "tiny", BASE: "base", ANATOMY: "tiny"}  # arm -> preset of its autoencoder
TITLES = {  # arm of this experiment -> what tables call it
    ANATOMY: "MedIL, anatomy first",
    RELEASE: "MedIL, released",
    "integrated": "MedIL, learned",
    "trilinear": "MedIL-Interp, learned",
    "conv-1mm": "fixed-size Conv AE, learned",
    BASE: "MedIL, larger release",
}
STEPS = {"quick": 40, "gpu": 2000, "paper": 30000}
N_HEADS = {"quick": 2, "gpu": 16, "paper": 16}
SEED = 0


def autoencoder(arm: str, profile: str) -> LatentAutoencoder:
    """An arm's autoencoder in evaluation mode, trained if its weights are missing.

    The name of its file is a digest of all that the weights depend on.
    """
    if arm in RELEASED:
        return load_release(RELEASED[arm])
    config = RunConfig("generation", ARMS[arm + LEARNED], recipe())
    steps, n_heads = STEPS[profile], N_HEADS[profile]
    about = [asdict(config.model), asdict(config.train), steps, n_heads, SEED, TRAIN_SEED]
    path = FOLDER / "autoencoders" / f"{arm}_{digest([*about, HEADS_VERSION])[:8]}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = train_arm(config, training_heads(n_heads), SEED, steps, None, title=TITLES[arm])
        facts = {"arm": arm, "seed": SEED, "step": steps, "training_loss": trained.loss}
        save_weights(trained.by_steps.model, config, path, facts, force=True)
    return load_model(path)
