"""`python -m eval.patch_vs_whole`."""

from eval.patch_vs_whole import EXPERIMENT

if __name__ == "__main__":
    raise SystemExit(EXPERIMENT.main())
