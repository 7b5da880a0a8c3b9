"""The files of a run, through which its processes also communicate: directory, checkpoints, metrics, control files."""
