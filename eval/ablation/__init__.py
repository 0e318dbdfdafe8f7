"""Which operator learns best: arms, seeds and held-out subjects, fairly paired."""
