"""`python -m grpo_dist.cluster.job`, as job scripts rendered up to version 0.1 call it."""

import sys

from grpo_dist.procs.tree import ignore_sigterm_until_exec
from grpo_dist.slurm.job import main

if __name__ == "__main__":
    ignore_sigterm_until_exec()
    sys.exit(main(sys.argv[1:]))
