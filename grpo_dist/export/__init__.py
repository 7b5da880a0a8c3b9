"""A trained model for the world outside the run: what is asked for, its card, and the way to the Hub."""
