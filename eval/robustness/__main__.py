"""`python -m eval.robustness`."""

from eval.robustness import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
