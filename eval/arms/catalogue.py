"""The arms of the ablation: one latent, one budget of parameters, different operators and rivals.

Each arm comes twice: with the closed-form shortcut, and with both ends learned ("/learned").
Parameter counts lie within 10 % of the default arm's, whose trunk all MedIL arms share; arms with
one operator at both ends have a trunk of their own, a block shallower.
"""

from __future__ import annotations

from dataclasses import replace

from medil.config import ModelConfig
from medil.layers.operators import OPERATORS

TRUNK = ModelConfig(
    width_encoder=32, width_latent=48, width_fine=32, depth_encoder=1, depth_latent=3,
    depth_fine=2, frequencies=14, hidden=64,
)  # fmt: skip
SKIP_FREQUENCIES = 6  # along each axis: as many numbers as 18 plane waves
LEARNED = "/learned"


_SHALLOW = replace(TRUNK, width_encoder=16, width_latent=40, depth_latent=2)
_BOTH = replace(TRUNK, depth_latent=2)
ARMS: dict[str, ModelConfig] = {
    **{name: replace(TRUNK, operator=name) for name in OPERATORS},
    "literal-skip": replace(TRUNK, operator="literal-skip", frequencies=SKIP_FREQUENCIES),
    "integrated-j5": replace(TRUNK, harmonics=2),
    "trilinear-both": replace(_BOTH, operator="trilinear", encoder_operator="trilinear"),
    "literal-skip-both": replace(
        _BOTH,
        operator="literal-skip",
        encoder_operator="literal-skip",
        frequencies=SKIP_FREQUENCIES,
    ),
    "literal-both": replace(_BOTH, operator="literal", encoder_operator="literal"),
    "conv-1mm": replace(_SHALLOW, architecture="conv"),
    "conv-1.33mm": replace(TRUNK, architecture="conv", working_mm=4 / 3, depth_latent=2),
    "resizing": replace(_SHALLOW, architecture="resizing"),
}
ARMS |= {f"{name}{LEARNED}": replace(arm, closed_form=False) for name, arm in ARMS.items()}


def all_learned(arm: str) -> bool:
    """Whether an arm, such as ``integrated/learned @both``, has no closed-form shortcut."""
    return arm.partition(" @")[0].endswith(LEARNED)


Size = tuple[float, int]  # pitch of the latent in mm, numbers a cell
OWN: Size = (TRUNK.latent_spacing_mm, TRUNK.latent_channels)


def size_of(arm: str) -> Size:
    """The latent's size of an arm; the trunk's where the catalogue does not hold it."""
    config = ARMS.get(arm.partition(" @")[0], TRUNK)
    return config.latent_spacing_mm, config.latent_channels


def sized(codec: str, size: Size) -> str:
    """A codec's name in the rows, with the size where that is not the catalogue's own.

    Example:
        >>> sized("dct_ball", (4.0, 8)), sized("dct_ball", (3.0, 4))
        ('dct_ball', 'dct_ball (3 mm, 4)')
    """
    return codec if size == OWN else f"{codec} ({size[0]:g} mm, {size[1]})"
