"""What is installed is what was written, and the lock is what setup.cfg allows."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setup() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def locked() -> dict[str, Requirement]:
    requirements = [Requirement(line.rstrip(" \\")) for line in _lock() if not line.startswith(("#", " "))]
    return {requirement.name: requirement for requirement in requirements}


def _lock() -> list[str]:
    return (ROOT / "requirements" / "cpu.txt").read_text().splitlines()


def requirements_of(setup, *extras: str) -> list[Requirement]:
    texts = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    return [Requirement(line) for text in texts for line in text.splitlines() if line]


def test_pyproject_holds_the_build_system_alone():
    import tomllib

    assert set(tomllib.loads((ROOT / "pyproject.toml").read_text())) == {"build-system"}


def test_the_extras_are_these(setup):
    assert set(setup["options.extras_require"]) == {
        *("train", "vllm", "deepspeed", "unsloth", "code", "reasoning-gym", "cpu", "tracking", "dev")
    }


def test_the_lock_pins_every_requirement_within_its_range(setup, locked):
    for requirement in requirements_of(setup, "train", "tracking", "reasoning-gym", "dev"):
        if requirement.name == "torch":  # installed by install.sh, from where its CPU build can be had
            [pinned] = [line.split("=")[1] for line in _install_script() if line.startswith("torch=")]
        else:
            [specifier] = locked[requirement.name].specifier
            pinned = specifier.version
        assert requirement.specifier.contains(pinned), f"{requirement} but {pinned} is locked"


def test_every_locked_file_has_its_hash_and_the_installer_asks_for_it(locked):
    text = "\n".join(_lock()).replace("\\\n", "")
    hashed = re.findall(r"^([\w.-]+)(?:\[.*\])?==.*--hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
    assert list(dict.fromkeys(hashed)) == list(locked)
    asked = [line for line in _install_script() if re.search(r'install .*-r "\$halves/[01]"', line)]
    assert len(asked) == 2
    assert all("--require-hashes" in line for line in asked)


def test_every_package_that_is_imported_is_declared(setup):
    named = {"math_verify": "math-verify", "yaml": "pyyaml"}
    extras = ("train", "vllm", "deepspeed", "unsloth", "code", "reasoning-gym")
    declared = {one.name for one in requirements_of(setup, *extras)} | {"sympy"}  # it comes with reasoning-gym
    imported = {name for path in (ROOT / "grpo_dist").rglob("*.py") for name in _imported(path)}
    # A sandboxed program finds its neighbours in its own directory.
    ours = {*sys.stdlib_module_names, "grpo_dist", "remote", "confine", "processes"}
    assert {named.get(name, name.replace("_", "-")) for name in imported - ours} - declared == set()


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def _install_script() -> list[str]:
    return (ROOT / "requirements" / "install.sh").read_text().splitlines()


@pytest.mark.heavy
def test_a_wheel_holds_the_package_and_its_data(tmp_path):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    clone = tmp_path / "clone"
    for name in filter(None, tracked.decode().split("\0")):
        target = clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=clone, capture_output=True, check=True)
    [wheel] = tmp_path.glob("grpo_dist-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {name for name in tracked.decode().split("\0") if name.startswith("grpo_dist/")}
    assert ours <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
