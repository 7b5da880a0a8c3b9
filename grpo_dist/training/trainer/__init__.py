"""GRPOTrainer and its overridden methods."""
