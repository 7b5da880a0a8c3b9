"""What a run leaves on disk, and how processes speak through it: directory, checkpoints, metrics, control files."""
