"""`python -m eval.ablation`: see `eval.ablation.measure`."""

from eval.ablation.measure import main

if __name__ == "__main__":
    raise SystemExit(main())
