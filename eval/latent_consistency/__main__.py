"""`python -m eval.latent_consistency`."""

from eval.latent_consistency import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
