"""The latent diffusion model: latents, network, training, sampling."""
