"""`python -m eval.speed`."""

from eval.speed import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
