from eval.latent_consistency import EXPERIMENT

raise SystemExit(EXPERIMENT.main())
