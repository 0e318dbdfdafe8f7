from eval.preprocessing import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
