from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from grpo_dist.inference import registry
from grpo_dist.inference.registry import (
    ReplicaEntry,
    clear,
    make_key,
    read_key,
    read_replicas,
    remove_key,
    remove_replica,
    write_replica,
)

ENTRY = ReplicaEntry("0", "http://127.0.0.1:20000", "127.0.0.1", 4711, 0, "starting", "logs/replica-0.log")


def test_only_its_owner_reads_the_key(tmp_path):
    key = make_key(tmp_path)
    assert len(key) == 64
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert read_key(tmp_path) == key


def test_all_nodes_of_a_run_have_one_key_and_a_later_start_has_another(tmp_path):
    first = make_key(tmp_path)
    assert make_key(tmp_path) == first
    remove_key(tmp_path)
    assert make_key(tmp_path) != first
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_without_servers_there_is_no_key_and_no_replica(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_key(tmp_path)
    assert read_replicas(tmp_path / "nowhere") == ()


def test_replicas_are_read_as_they_were_last_written(tmp_path):
    other = replace(ENTRY, name="1", url="http://127.0.0.1:20001")
    for entry in (ENTRY, other, replace(ENTRY, state="ready", incarnation=1)):
        write_replica(tmp_path, entry)
    assert read_replicas(tmp_path) == (replace(ENTRY, state="ready", incarnation=1), other)
    remove_replica(tmp_path, "0")
    remove_replica(tmp_path, "0")
    assert read_replicas(tmp_path) == (other,)


def test_what_a_killed_attempt_left_is_cleared_with_its_key(tmp_path):
    write_replica(tmp_path, replace(ENTRY, state="ready"))
    (tmp_path / ".lock-0").touch()
    before = make_key(tmp_path)
    clear(tmp_path)
    assert read_replicas(tmp_path) == ()
    assert make_key(tmp_path) != before
    assert (tmp_path / ".lock-0").exists()
    clear(tmp_path / "nowhere")


def test_a_key_that_was_never_finished_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "KEY_SECONDS", 0.2)
    (tmp_path / "key").write_text("cut")
    assert len(make_key(tmp_path)) == 64


def test_a_key_needs_no_hard_links(tmp_path, monkeypatch):
    monkeypatch.delattr("os.link")
    assert make_key(tmp_path) == read_key(tmp_path)
