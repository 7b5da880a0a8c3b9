"""Inside a Slurm job: one agent per node, a coordinator on the first of them."""
