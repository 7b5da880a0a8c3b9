"""sbatch: submitting a script, or asking whether it could be."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from grpo_dist.cluster.slurm.program import call
from grpo_dist.errors import SlurmError

SITE = "or in ~/.config/grpo-dist/site.yaml"
ASSOCIATIONS = "sacctmgr show associations user=$USER format=account,partition,qos"
ADVICE = {
    "account": f"set cluster.account, {SITE}; yours: {ASSOCIATIONS}",
    "qos": f"set cluster.qos, {SITE}; yours: {ASSOCIATIONS}",
    "feature": "set cluster.constraint to what the nodes have: sinfo --format='%P %f'",
    "time limit": "set cluster.time to what the partition allows: sinfo --format='%P %l'",
    "generic resource": "set cluster.gpus_per_node to what the nodes have: sinfo --format='%P %D %G'",
    "node count": "set cluster.nodes to what the partition has: sinfo --format='%P %D %G'",
    "node configuration": "fit cluster.nodes, gpus_per_node, cpus_per_gpu and constraint to the partition: "
    "sinfo --format='%P %D nodes, %c CPUs, %m MB, %G, %f'",
    "memory": "set --mem in cluster.sbatch to what the nodes have: sinfo --format='%P %m MB'",
    "unrecognized option": "mend cluster.sbatch; sbatch --help lists the options",
    "invalid option": "mend cluster.sbatch; sbatch --help lists the options",
}
"""Words of Slurm's error → what to type; the first that is in them counts."""


def submit(script: Path, directory: Path, options: Sequence[str] = ()) -> str:
    """Queue a script that will run in a directory, and give its job id.

    Options come before those in the script.

    Raises:
        SlurmError: there is no sbatch, or it refuses.
    """
    answer, _ = call("sbatch", "--parsable", f"--chdir={directory}", *options, str(script), advice=advice)
    job_id = answer.strip().partition(";")[0]
    if not job_id.isdigit():
        raise SlurmError(f"sbatch answered {answer.strip()!r}, which is no job id", hint="squeue --me shows your jobs")
    return job_id


def test_only(script: str, options: Sequence[str] = ()) -> str:
    """Slurm's own words on when and where a script would start; nothing is queued.

    Raises:
        SlurmError: it never would, or there is no sbatch.
    """
    said, more = call("sbatch", "--test-only", *options, stdin=script, advice=advice)
    return (said + more).strip()


def never_starts(script: str) -> str | None:
    """Why Slurm sees no way to start a script that it queued none the less: more nodes than there are, for example.

    None where it sees one, or cannot be asked.
    """
    try:
        test_only(script)
    except SlurmError as error:
        return str(error)
    return None


def advice(words: str) -> str | None:
    """What to type about a refusal, with the nearest partition there is."""
    said = words.lower()
    if "partition" in said and "time limit" not in said:
        return _partition(words)
    return next((what for key, what in ADVICE.items() if key in said), None)


def _partition(words: str) -> str:
    try:
        there = sorted(set(call("sinfo", "--noheader", "--format=%R")[0].splitlines()) - {""})
    except SlurmError:
        there = []
    asked = words.partition("specified: ")[2].partition("\n")[0]
    near = get_close_matches(asked, there, n=1) or there[:1]
    listed = f"; there is {', '.join(there)}" if there else ""
    return f"--set cluster.partition={shlex.quote(near[0] if near else 'NAME')}, {SITE}{listed}"
