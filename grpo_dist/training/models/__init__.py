"""Loading, asking and scoring models."""
