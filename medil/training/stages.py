"""Parameter groups of the two stages: what the first stage leaves alone.

As in the first author's later library: "base" holds the convolutions and the trilinear skip,
"refine" the texture estimators. Stage one trains "base" alone, stage two everything.
"""

from __future__ import annotations

from torch import nn

from medil.errors import InputError
from medil.layers.pointwise import SkipLTE


def refinement(model: nn.Module) -> list[nn.Parameter]:
    """The weights of group "refine": those of each LTE with a skip, but for the skip's.

    Raises:
        InputError: No operator has a skip, so that stage one would have nothing to resample with.

    Source: TylerSpears/epinr.
    """
    found: list[nn.Parameter] = []
    for operator in (part for part in model.modules() if isinstance(part, SkipLTE)):
        skip = {id(weight) for weight in operator.skip.parameters()}
        found += [weight for weight in operator.parameters() if id(weight) not in skip]
    if not found:
        raise InputError(
            "groups of stages need the operator literal-skip, whose skip stage one can train alone."
        )
    return found


def hold(weights: list[nn.Parameter], held: bool) -> None:
    """Take weights out of training or back in; no gradient, decay or moment touches held ones."""
    for weight in weights:
        weight.requires_grad_(not held)
