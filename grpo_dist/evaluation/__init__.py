"""Comparison of base and trained model from their answers, with intervals. No model is loaded here."""
