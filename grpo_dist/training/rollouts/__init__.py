"""Where completions come from: TRL's generation replaced by the run's servers or engines."""
