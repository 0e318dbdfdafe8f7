"""`python -m eval.reconstruction`."""

from eval.reconstruction import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
