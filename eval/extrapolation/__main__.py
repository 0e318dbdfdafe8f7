"""`python -m eval.extrapolation`."""

from eval.extrapolation import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
