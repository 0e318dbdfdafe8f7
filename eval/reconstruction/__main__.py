"""`python -m eval.reconstruction`: see `eval.reconstruction.measure`."""

from eval.reconstruction.measure import main

raise SystemExit(main())
