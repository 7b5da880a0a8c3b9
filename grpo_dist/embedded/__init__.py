"""A tiny model and a task generated from one seed: nothing is downloaded, and two CPU cores are enough to see it
learn."""
