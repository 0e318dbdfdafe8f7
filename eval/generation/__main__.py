"""`python -m eval.generation`."""

from eval.generation import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
