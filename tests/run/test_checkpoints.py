from __future__ import annotations

from pathlib import Path

from grpo_dist.run.checkpoints import discard_after, is_complete, newest_complete, seal


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
    for text in ("", "{", "[1]", "null"):
        directory = checkpoint(tmp_path / str(len(text)), 5)
        (directory / "complete.json").write_text(text)
        assert not is_complete(directory)


def test_no_checkpoints_at_all(tmp_path):
    assert newest_complete(tmp_path / "missing") is None


def test_what_came_after_is_discarded_and_nothing_else(tmp_path):
    for step in (5, 10):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 15, sealed=False)
    (tmp_path / "checkpoint-notes").mkdir()
    discard_after(tmp_path, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-5", "checkpoint-notes"]
