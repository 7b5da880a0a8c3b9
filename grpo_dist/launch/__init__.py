"""Effects outside the training process: starting it, watching it, ending it."""
