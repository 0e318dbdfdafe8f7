from eval.reconstruction import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
