"""Any autoencoder as the tables see it: what it keeps of a volume, and what it renders."""
