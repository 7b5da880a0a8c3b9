"""Each tracker has really received the run."""

from __future__ import annotations

import sqlite3

import pytest

pytestmark = pytest.mark.heavy


def test_each_tracker_receives_the_metrics_of_the_run(finished):
    program, _ = finished
    run = program.cwd / "run"
    reward = program.metrics("run")[-1]["reward"]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/reward")][-1] == pytest.approx(reward)
    assert "train/perf/tokens_per_second" in events.Tags()["scalars"]

    [database] = (run / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        rows = [str(row) for row in connection.execute("select * from metrics")]
    assert any("train/reward" in row for row in rows)

    [record] = (run / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"train/reward" in record.read_bytes()
