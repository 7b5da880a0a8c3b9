from __future__ import annotations

from grpo_dist.run import metrics


def test_lines_read_back_without_nan(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, {"step": 1, "reward": 0.5, "kl": float("nan")})
    metrics.append(path, {"step": 2, "reward": float("inf")})
    assert metrics.read(path) == [{"step": 1, "reward": 0.5, "kl": None}, {"step": 2, "reward": None}]


def test_a_torn_line_is_left_out_and_truncation_forgets_later_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        metrics.append(path, {"step": step})
    with open(path, "a") as handle:
        handle.write('{"step": 4, "rew')
    assert [r["step"] for r in metrics.read(path)] == [1, 2, 3]
    metrics.truncate_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_run_without_metrics_yet(tmp_path):
    assert metrics.read(tmp_path / "metrics.jsonl") == []
    metrics.truncate_after(tmp_path / "metrics.jsonl", 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
