"""A tiny model and a task generated from one seed: nothing is downloaded, and two CPU cores suffice to see it learn."""
