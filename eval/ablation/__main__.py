"""`python -m eval.ablation`."""

from eval.ablation import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
