"""Completions from vLLM servers of the run: starting them, speaking to them, keeping them at the newest adapter."""
