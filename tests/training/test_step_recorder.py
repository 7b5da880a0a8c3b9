"""Rates and shares of logged steps, on a clock of the test's own."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

GENERATION, SYNC, TRAINING = 10.0, 2.0, 1.0
COMPLETIONS, LENGTH, PROMPT_TOKENS = 8, 5.0, 24


@pytest.mark.parametrize(("num_iterations", "logging_steps"), [(1, 1), (1, 4), (2, 1), (2, 3), (4, 3), (3, 5)])
def test_shares_and_rates_count_the_generations_there_were(tmp_path, monkeypatch, num_iterations, logging_steps):
    """A step that trains on earlier completions generates none, and a line may stand for any number of both."""
    from grpo_dist.training.trainer import callbacks

    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock.now)
    args = SimpleNamespace(
        num_iterations=num_iterations,
        generation_batch_size=COMPLETIONS,
        vllm_importance_sampling_mode="token_truncate",
    )
    state = SimpleNamespace(global_step=0, num_input_tokens_seen=0, max_steps=12, is_world_process_zero=True)
    recorder = callbacks.StepRecorder(tmp_path / "metrics.jsonl")
    recorder.on_train_begin(args, state, None)
    expected, rounds, began = [], 0, clock.now
    for step in range(12):
        if step % num_iterations == 0:
            clock.now += SYNC + GENERATION
            state.num_input_tokens_seen += PROMPT_TOKENS + COMPLETIONS * LENGTH
            rounds += 1
        clock.now += TRAINING
        state.global_step = step + 1
        if state.global_step % logging_steps == 0:
            logs = {"loss": 0.0}
            if rounds:  # means over the generations since the line before
                logs |= {"perf/generation_seconds": GENERATION, "perf/sync_seconds": SYNC}
                logs["completions/mean_length"] = LENGTH
            recorder.on_log(args, state, None, logs)
            expected.append((rounds, clock.now - began))
            rounds, began = 0, clock.now
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line, (rounds, seconds) in zip(lines, expected, strict=True):
        assert line["perf/idle_share"] == pytest.approx(rounds * (GENERATION + SYNC) / seconds)
        assert 0 <= line["perf/idle_share"] <= 1
        assert line["perf/completion_tokens_per_second"] == pytest.approx(rounds * COMPLETIONS * LENGTH / seconds)
        assert line["perf/prompt_tokens_per_second"] == pytest.approx(rounds * PROMPT_TOKENS / seconds)


def test_a_completions_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    import pandas

    from grpo_dist.training.trainer.trainer import WholeTable

    def full(_table, path, **_):
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    path = tmp_path / "completions_00001.parquet"
    WholeTable({"step": [1]}).to_parquet(str(path))
    monkeypatch.setattr(pandas.DataFrame, "to_parquet", full)
    for name in (path, tmp_path / "completions_00002.parquet"):
        with pytest.raises(OSError, match="No space left"):
            WholeTable({"step": [2]}).to_parquet(str(name))
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert pandas.read_parquet(path)["step"].tolist() == [1]
