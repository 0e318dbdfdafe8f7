"""Training of an autoencoder: patches, losses, runs that resume exactly."""
