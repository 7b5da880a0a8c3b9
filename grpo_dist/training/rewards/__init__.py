"""Calling the user's reward functions."""
