"""Live parts of the page on latent consistency."""

from __future__ import annotations

from torch import Tensor

from eval.latent_consistency.latents import differences

Pair = tuple[Tensor, Tensor]  # two latents [C, n], cell by cell


def line_apart(name: str, pair: Pair, strangers: Pair) -> dict[str, str | float]:
    """A line of a table: how far two latents lie apart, as a fraction of those of two heads."""
    found, unit = differences(*pair), differences(*strangers)
    return {
        "Against 1 mm": name,
        "Distance": found["latent_rms"] / unit["latent_rms"],
        "L2": found["latent_l2"],
        "Cosine": found["latent_cosine"],
    }
