"""`python -m eval.ablation`: see `eval.ablation.measure`."""

from eval.ablation.measure import main

raise SystemExit(main())
