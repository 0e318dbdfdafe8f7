"""What a release is: its size and how long it was trained, as rows beside its results."""

from __future__ import annotations

from eval import rows
from eval.coders.base import release_arm
from medil.model.autoencoder import MedIL
from medil.model.weights import weights_sha256

NAME = "release"
FACTS = ("minutes", "step")  # that training wrote into the weights
UNITS = {
    "parameters": "1",
    "latent_channels": "1",
    "latent_spacing": "mm",
    "training_minutes": "min",
    "training_step": "1",
}


def release_rows(model: MedIL, name: str, provenance: rows.Provenance) -> list[rows.Row]:
    """One row per quantity: parameters, latent pitch and channels, and training facts."""
    config = model.config
    n_parameters = sum(p.numel() for p in model.parameters())
    values = {
        "parameters": n_parameters,
        "latent_channels": config.latent_channels,
        "latent_spacing": config.latent_spacing_mm,
    }
    facts = getattr(model, "facts", {})
    values |= {f"training_{fact}": facts[fact] for fact in FACTS if fact in facts}
    mm3 = max(1, round(config.latent_spacing_mm**3))  # a latent cell, in voxels of 1 mm
    return rows.of_values(
        values,
        UNITS,
        experiment=NAME,
        subject=name,
        arm=release_arm(name),
        condition="as released",
        spacing_in_mm="any",
        spacing_out_mm="any",
        numbers_kept=config.latent_channels,
        n_voxels=mm3,
        config_hash=rows.digest(facts.get("config_hash", "")),
        data_sha256="none",
        weights_sha256=weights_sha256(model),
        time_s=0.0,
        provenance=provenance,
    )
