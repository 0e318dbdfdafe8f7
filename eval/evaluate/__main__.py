"""`python -m eval.evaluate`; `medil evaluate` calls it."""

from eval.evaluate import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
