"""What runs inside a Slurm job: one agent per node, and the coordinator of the attempt on the first node."""
