"""`python -m grpo_dist.cluster.node`, as job scripts rendered up to version 0.1 call it."""

import sys
from pathlib import Path

from grpo_dist.supervisor.node import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
