"""The decoder's ceiling: how near any latent can bring a decoder to a given volume.

Whatever samples latents, a diffusion model for one, its pictures come out of the decoder.
So the latent is searched here with the truth in hand, which no sampler has: what even this
search cannot render, no sampler will.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from medil.errors import InputError
from medil.latent import Latent
from medil.model.autoencoder import MedIL
from medil.system.device import training_precision
from medil.volume import Volume, replace_nonfinite


def best_latent(
    model: MedIL,
    volume: Volume,
    steps: int = 30,
    learning_rate: float = 0.02,
    start: Latent | None = None,
    bf16: bool = True,
) -> tuple[Latent, list[float]]:
    """Search for the latent that renders a volume best: Adam on the latent, weights fixed.

    A local search: what it finds is a lower bound of the decoder's ceiling, tight only where
    the curve of errors has levelled off. It starts at the encoder's latent, is free to leave
    the prior, and gives back the best latent on its way, so never a worse one than the start.
    Source: inverting a generator by descent on its input (Zhu, Kraehenbuehl et al. 2016).

    Args:
        model: Encoder and decoder; its weights are read, not changed.
        volume: The truth, on the grid that is rendered; a crop, since every step renders it.
        steps: Gradient steps; 0 gives back the start.
        learning_rate: Learning rate of Adam, in latent units.
        start: Where the search begins; `model.encode(volume)` when None.
        bf16: Search with the convolutions in bfloat16 where the machine has it, as in training:
            several times faster, and blind to errors far below those of the decoder.

    Returns:
        The best latent, and the root mean square error of the rendering before each step and
        after the last one, `steps + 1` numbers on the 0 ... 1 intensity scale.

    Raises:
        InputError: A negative number of steps, or what `model.encode` refuses.
    """
    if steps < 0:
        raise InputError(f"the number of steps cannot be below zero, not {steps}.")
    start = start or model.encode(volume)
    data, _ = replace_nonfinite(volume.data)
    device = next(model.parameters()).device
    truth = start.intensity.forward(data)[None, None].to(device)  # [1, 1, D, H, W]
    z = start.mean[None].to(device).clone().requires_grad_()  # [1, C, d, h, w]
    optimiser = torch.optim.Adam([z], lr=learning_rate)
    best, least, history = start.mean, math.inf, []
    for step in range(steps + 1):
        with training_precision(z.device, bf16):
            rendered = model.decode_tensor(z, start.grid, volume.grid)
        mse = (rendered.float() - truth).square().mean()
        history.append(math.sqrt(mse.item()))
        if history[-1] < least:
            best, least = z.detach()[0].cpu().clone(), history[-1]
        if step < steps:
            (z.grad,) = torch.autograd.grad(mse, z)  # of the latent alone, not of the weights
            optimiser.step()
    return replace(start, mean=best), history
