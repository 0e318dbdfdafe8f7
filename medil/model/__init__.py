"""Autoencoders with a latent in mm, and the codecs they are compared with."""
