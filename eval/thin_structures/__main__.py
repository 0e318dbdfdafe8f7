from eval.thin_structures import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
