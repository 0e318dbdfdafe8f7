"""`python -m eval.training`."""

from eval.training import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
