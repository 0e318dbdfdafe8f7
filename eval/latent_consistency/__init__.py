"""Does a head keep its latent on another grid, at another resolution, under a wrong header?"""
