"""`python -m eval.training`: see `eval.training.measure`."""

from eval.training.measure import main

if __name__ == "__main__":
    raise SystemExit(main())
