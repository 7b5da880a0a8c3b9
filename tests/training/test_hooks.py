"""What we rely on inside TRL, vLLM, Transformers and Accelerate is as it was; read from their source, not imported."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hooks import WRITTEN_FOR, Hook, faults, told
from hooks_others import ACCELERATE, OTHERS, TRANSFORMERS, VLLM
from hooks_trl import CLIENT, GENERATION, TRL, UTILS

import grpo_dist

HOOKS = (*TRL, *VLLM, *TRANSFORMERS, *ACCELERATE, *OTHERS)
OURS = Path(grpo_dist.__file__).parent
PAGE = OURS.parent / "docs" / "hooks.md"
ROW = re.compile(r"^\| `(.+?)` \| (.+?) \| .+ \| .+ \|$", re.MULTILINE)
ROOMS = ("training/trainer", "training/rollouts", "training/rewards", "training/common", "training/models", "inference")
SPELLED = {
    "trl": "TRL",
    "vllm": "vLLM",
    "transformers": "Transformers",
    "accelerate": "Accelerate",
    "torch": "PyTorch",
    "deepspeed": "DeepSpeed",
    "unsloth_zoo": "Unsloth",
}
TRLS_BASE = "trl/trainer/base_trainer.py"
STANDING_IN_FOR = {"GRPOTrainer", "VLLMGeneration", "VLLMClient", "RepeatSampler"}


def packages_of(hook: Hook) -> Path | None:
    """The directory its package is installed in; None where it is not."""
    spec = find_spec(hook.package)
    return Path(spec.submodule_search_locations[0]).parent if spec else None


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_a_hook_is_as_ours_needs_it(hook, missing):
    packages = packages_of(hook) or missing(f"{hook.package} is not installed")
    found = faults(hook, packages)
    assert not found, told(hook, found)


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.name)
def test_our_file_names_its_hook_and_the_version(hook):
    for file in hook.ours.split(", "):
        text = " ".join((OURS / file).read_text(encoding="utf-8").replace("# ", "").split())
        needed = {*words([hook]), f"{SPELLED[hook.package]} {WRITTEN_FOR[hook.package]}"}
        assert [word for word in needed if word not in text] == [], f"{file} does not say so of {hook.name}"


def test_the_page_lists_the_same_hooks():
    page = PAGE.read_text(encoding="utf-8")
    rows = [(name, ", ".join(re.findall(r"`([^`]+)`", ours))) for name, ours in ROW.findall(page)]
    assert rows == [(hook.name, hook.ours) for hook in HOOKS]


def test_the_page_names_the_versions():
    page = PAGE.read_text(encoding="utf-8")
    assert [package for package, name in SPELLED.items() if f"{name} {WRITTEN_FOR[package]}" not in page] == []


def changed(hook: Hook, tmp_path: Path, old: str, new: str) -> list[str]:
    """What is found where the first file of a hook's package says something else."""
    packages = packages_of(hook)
    if packages is None:
        pytest.skip(f"{hook.package} is not installed")
    for file in {place.file for place in hook.places}:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(packages / file, tmp_path / file)
    first = tmp_path / hook.places[0].file
    text = first.read_text(encoding="utf-8")
    assert old in text
    first.write_text(text.replace(old, new), encoding="utf-8")
    return faults(hook, tmp_path)


def hook_named(name: str) -> Hook:
    return next(hook for hook in HOOKS if hook.name == name)


def test_a_renamed_method_is_told_with_hook_and_file(tmp_path):
    hook = hook_named("GRPOTrainer._compute_loss")
    message = told(hook, changed(hook, tmp_path, "def _compute_loss(", "def _loss_of("))
    assert "`GRPOTrainer._compute_loss` has changed in trl" in message
    assert "grpo_dist/training/trainer/deferred_scoring.py" in message
    assert "trl/trainer/grpo_trainer.py: there is no GRPOTrainer._compute_loss" in message
    assert "docs/hooks.md" in message


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("GRPOTrainer._calculate_rewards", "completions, completion_ids_list):", "completions):", "not (self, inputs,"),
        ("Trainer._get_grad_norm", "model, grad_norm=None)", "model, *, norm=None)", "takes (self, model, norm)"),
        ("LLM.generate", "lora_request:", "adapter:", "does not take lora_request any more"),
        ("AsyncLLM.remove_lora", "lora_id: int) -> bool", "lora_id: int, wait: bool) -> bool", "lora_id, wait"),
    ],
)
def test_a_changed_signature_is_told(tmp_path, name, old, new, fault):
    assert fault in "\n".join(changed(hook_named(name), tmp_path, old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("GRPOTrainer._buffered_inputs", "self._buffered_inputs = None", "self._buffer = None"),
        ("RepeatSampler.__iter__", "torch.randperm(self.num_samples", "torch.randperm(len(self)"),
        ("ParentRequest._get_child_sampling_params", "seed + index", "hash((seed, index))"),
        ("app.state", "state.engine_client =", "state.engine ="),
    ],
)
def test_other_code_behind_a_hook_is_told(tmp_path, name, old, new):
    (fault,) = changed(hook_named(name), tmp_path, old, new)
    assert "no longer says" in fault


def test_a_file_that_is_gone_is_told(tmp_path):
    assert set(faults(VLLM[0], tmp_path)) == {f"{VLLM[0].places[0].file}: there is no such file"}


def test_code_that_is_only_formatted_anew_is_no_fault(tmp_path):
    hook = hook_named("split_tensor_dict")
    old = "def split_tensor_dict(\n    tensor_dict: dict[str, torch.Tensor | None], num_chunks: int\n)"
    new = "def split_tensor_dict(tensor_dict: dict, num_chunks: int)"
    assert changed(hook, tmp_path, old, new) == []


def modules() -> Iterator[tuple[str, ast.Module]]:
    for room in ROOMS:
        for path in sorted((OURS / room).glob("*.py")):
            yield str(path.relative_to(OURS)), ast.parse(path.read_text(encoding="utf-8"))


def subclasses() -> Iterator[tuple[str, ast.ClassDef]]:
    """(file, class) of ours that stand in for one of theirs, directly or over another of ours."""
    classes = [(file, node) for file, tree in modules() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known, before = set(STANDING_IN_FOR), -1
    while before != len(known):
        before = len(known)
        known |= {node.name for _, node in classes if known & {ast.unparse(base) for base in node.bases}}
    yield from ((file, node) for file, node in classes if node.name in known)


def words(hooks) -> set[str]:
    return {name.rpartition(".")[2] for hook in hooks for name in hook.name.split(", ")}


def methods_of_theirs(missing) -> set[str]:
    """Of the classes we stand in for, and of those below them."""
    found = set()
    for file in ("trl/trainer/grpo_trainer.py", TRLS_BASE, "transformers/trainer.py", GENERATION, CLIENT, UTILS):
        packages = packages_of(next(hook for hook in HOOKS if hook.package == file.partition("/")[0]))
        packages = packages or missing(f"{file} is not installed")
        tree = ast.parse((packages / file).read_text(encoding="utf-8"))
        found |= {one.name for node in tree.body if isinstance(node, ast.ClassDef) for one in functions(node)}
    return found


def functions(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    yield from (one for one in node.body if isinstance(one, ast.FunctionDef))


def test_every_method_we_override_is_listed(missing):
    theirs = methods_of_theirs(missing) - {"__init__", "train"}  # handed on as given
    overridden = {(file, one.name) for file, node in subclasses() for one in functions(node) if one.name in theirs}
    assert {name for _, name in overridden} > {"_compute_loss", "_init_vllm", "_get_grad_norm", "create_model_card"}
    listed = {(file, word) for hook in HOOKS for file in hook.ours.split(", ") for word in words([hook])}
    assert overridden - listed == set(), "add it to tests/training/hooks_*.py and docs/hooks.md"


def test_every_private_attribute_of_theirs_is_listed():
    private, own = set(), set()
    for _, node in subclasses():
        own |= {one.name for one in ast.walk(node) if isinstance(one, ast.FunctionDef)}
        for one in ast.walk(node):
            if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self" and re.match("_[a-z]", one.attr):
                (own if isinstance(one.ctx, ast.Store) else private).add(one.attr)
        own |= {ast.unparse(target) for one in node.body if isinstance(one, ast.Assign) for target in one.targets}
    assert "_metrics" in private
    assert private - own - words(HOOKS) == set(), "add it to tests/training/hooks_*.py and docs/hooks.md"


def test_every_name_that_is_replaced_for_a_moment_is_listed():
    names = {
        ast.literal_eval(call.args[1])
        for _, tree in modules()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "replaced"
    }
    assert names == {"VLLMGeneration", "VLLMClient", "LLM", "pd"}
    places = {place.name.rpartition(".")[2] for hook in TRL for place in hook.places}
    assert names <= places


def test_every_inner_module_that_is_imported_is_listed():
    inner = {
        node.module
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and re.match(r"(trl|vllm)\.", node.module or "")
    }
    assert "vllm.v1.serial_utils" in inner
    files = [place.file for hook in HOOKS for place in hook.places]
    assert [name for name in inner if not any(file.startswith(name.replace(".", "/")) for file in files)] == []
