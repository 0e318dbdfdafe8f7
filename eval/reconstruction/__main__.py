"""`python -m eval.reconstruction`: see `eval.reconstruction.measure`."""

from eval.reconstruction.measure import main

if __name__ == "__main__":
    raise SystemExit(main())
