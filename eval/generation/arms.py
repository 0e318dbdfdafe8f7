"""The arms: samplers with and without a tissue map, on the latents of several autoencoders.

The releases were trained for long. Arms of equal compute share autoencoder, heads and minutes; one
is given maps, and each has the network of its release. Each of their sets has a flow of its own
seed. Arms of other autoencoders are all given maps. Those autoencoders learn both encoder and
decoder: with the closed-form shortcut they would share one latent, and the effect of the
autoencoder on samples could not be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eval.ablation.blocks import VERSION as HEADS_VERSION
from eval.ablation.training import TRAIN_SEED, training_heads
from eval.arms.catalogue import ARMS as CATALOGUE
from eval.arms.catalogue import LEARNED
from eval.arms.train import recipe, train_arm
from eval.rows import digest
from medil.config import RunConfig
from medil.model.base import LatentAutoencoder
from medil.model.weights import load_model, load_release, save_weights

FOLDER = Path("_build/generation")
TINY = "tiny"  # the released autoencoder
STEPS = {"quick": 40, "gpu": 2000, "paper": 30000}  # of the other autoencoders
N_HEADS = {"quick": 2, "gpu": 16, "paper": 16}
SEED = 0


@dataclass(frozen=True)
class Arm:
    """A sampler of one autoencoder's latents."""

    title: str
    autoencoder: str  # `TINY`, or one of `eval.arms.catalogue`
    has_map: bool = True  # anatomy first; otherwise image only
    released: bool = False  # otherwise trained here
    every_set: bool = False  # a flow of its own seed for every set; otherwise one for all


ANATOMY, IMAGE = "anatomy", "image-only"
ALIKE = (ANATOMY_ALIKE, IMAGE_ALIKE) = ("anatomy-alike", "image-only-alike")
ARMS = {
    ANATOMY: Arm("anatomy first, released", TINY, released=True),
    IMAGE: Arm("image only, released", TINY, has_map=False, released=True),
    ANATOMY_ALIKE: Arm("anatomy first, equal compute", TINY, every_set=True),
    IMAGE_ALIKE: Arm("image only, equal compute", TINY, has_map=False, every_set=True),
    "integrated": Arm("anatomy first, MedIL learned", "integrated"),
    "trilinear": Arm("anatomy first, MedIL-Interp learned", "trilinear"),
    "conv-1mm": Arm("anatomy first, fixed-size Conv AE", "conv-1mm"),
}
CODECS = tuple(name for name, arm in ARMS.items() if arm.autoencoder != TINY)


def flow_seed(arm: str, set_seed: int) -> int:
    """Seed of the flow that draws a set."""
    return set_seed if ARMS[arm].every_set else SEED


def stands_for(arm: str) -> str:
    """The first arm with the autoencoder of an arm: heads that it rebuilds are its own."""
    own = ARMS[arm].autoencoder
    return next(name for name, other in ARMS.items() if other.autoencoder == own)


def autoencoders(arms: Sequence[str]) -> list[str]:
    """The first arm of each autoencoder among some arms."""
    return list(dict.fromkeys(stands_for(arm) for arm in arms))


def autoencoder(arm: str, profile: str) -> LatentAutoencoder:
    """An arm's autoencoder in evaluation mode, trained if its weights are missing.

    The name of its file is a digest of all that the weights depend on.
    """
    own = ARMS[arm].autoencoder
    if own == TINY:
        return load_release(TINY)
    config = RunConfig("generation", CATALOGUE[own + LEARNED], recipe())
    steps, n_heads = STEPS[profile], N_HEADS[profile]
    about = [asdict(config.model), asdict(config.train), steps, n_heads, SEED, TRAIN_SEED]
    path = FOLDER / "autoencoders" / f"{own}_{digest([*about, HEADS_VERSION])[:8]}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        trained = train_arm(config, training_heads(n_heads), SEED, steps, None, title=own)
        facts = {"arm": own, "seed": SEED, "step": steps, "training_loss": trained.loss}
        save_weights(trained.by_steps.model, config, path, facts, force=True)
    return load_model(path)
