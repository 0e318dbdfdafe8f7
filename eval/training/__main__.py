"""`python -m eval.training`: see `eval.training.measure`."""

from eval.training.measure import main

raise SystemExit(main())
