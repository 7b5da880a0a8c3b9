"""LaunchPlan → text of the files other programs read; deterministic, no effects."""
