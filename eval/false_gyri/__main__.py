from eval.false_gyri import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
