"""GRPOTrainer and what is overridden in it."""
