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
    digests = rows.digest(facts.get("config_hash", "")), "none", weights_sha256(model)
    measurement = rows.Measurement(NAME, name, release_arm(name), "as released", *digests)
    cell = rows.Sampling.of_cell(config.latent_spacing_mm, config.latent_channels)
    return measurement.rows(values, UNITS, cell, 0.0, provenance)
