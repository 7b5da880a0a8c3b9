from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_dist.run.checkpoints import (
    damage,
    damaged_after,
    discard_after,
    is_complete,
    newest_complete,
    newest_sealed,
    seal,
)


def checkpoint(root: Path, step: int, *, sealed: bool = True) -> Path:
    directory = root / f"checkpoint-{step}"
    (directory / "nested").mkdir(parents=True)
    (directory / "adapter.safetensors").write_bytes(b"weights")
    (directory / "nested" / "rng_state_0.pth").write_bytes(b"rng")
    if sealed:
        seal(directory)
    return directory


def test_the_newest_sealed_checkpoint_is_taken_by_number_not_by_name(tmp_path):
    for step in (5, 10, 9):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 15, sealed=False)
    assert newest_complete(tmp_path).name == "checkpoint-10"


def test_a_truncated_file_unmakes_a_checkpoint(tmp_path):
    older, newer = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    (newer / "nested" / "rng_state_0.pth").write_bytes(b"")
    assert not is_complete(newer)
    assert newest_complete(tmp_path) == older
    (older / "adapter.safetensors").unlink()
    assert newest_complete(tmp_path) is None


def test_a_torn_seal_does_not_count(tmp_path):
    for text in ("", "{", "[1]", "null", "[" * 100_000, '{"adapter.safetensors": [7]}'):
        directory = checkpoint(tmp_path / str(len(text)), 5)
        (directory / "complete.json").write_text(text)
        assert not is_complete(directory)


@pytest.mark.parametrize("name", ["adapter.safetensors", "nested/rng_state_0.pth"])
def test_a_flipped_byte_unmakes_a_checkpoint_and_is_named(tmp_path, name):
    older, newer = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    file = newer / name
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])
    assert newest_complete(tmp_path) == older
    assert damage(newer) == f"{name}: not what was saved"
    assert list(damaged_after(tmp_path, 5)) == [(newer, damage(newer))]


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o644), (0o750, 0o640), (0o2770, 0o660), (0o700, 0o600)])
def test_a_sealed_checkpoint_is_readable_as_its_directory_is(tmp_path, directory, file):
    """safetensors writes files that only their owner reads."""
    found = checkpoint(tmp_path, 5, sealed=False)
    for path in found.rglob("*"):
        path.chmod(0o600 if path.is_file() else 0o755)
    found.chmod(directory)
    seal(found)
    assert {
        path.stat().st_mode & 0o777 for path in found.rglob("*") if path.name != "complete.json" and path.is_file()
    } == {file}


def test_a_checkpoint_sealed_empty_does_not_count(tmp_path):
    (tmp_path / "checkpoint-5").mkdir()
    seal(tmp_path / "checkpoint-5")
    assert newest_complete(tmp_path) is None


def test_a_seal_of_sizes_from_earlier_versions_still_counts(tmp_path):
    directory = checkpoint(tmp_path, 5, sealed=False)
    (directory / "complete.json").write_text(json.dumps({"adapter.safetensors": 7, "nested/rng_state_0.pth": 3}))
    assert newest_complete(tmp_path) == directory
    (directory / "adapter.safetensors").write_bytes(b"weight")
    assert not is_complete(directory)


def test_a_save_that_was_cut_off_is_no_damage(tmp_path):
    older = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10, sealed=False)
    assert list(damaged_after(tmp_path, 0)) == []
    assert newest_sealed(tmp_path) == older


def test_no_checkpoints_at_all(tmp_path):
    assert newest_complete(tmp_path / "missing") is None


def test_what_came_after_is_discarded_and_nothing_else(tmp_path):
    for step in (5, 10):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 15, sealed=False)
    (tmp_path / "checkpoint-notes").mkdir()
    discard_after(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-5", "checkpoint-notes"]
