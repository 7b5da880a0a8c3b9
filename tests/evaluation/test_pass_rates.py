"""Which problems are kept, and a record that a crash cannot spoil."""

from __future__ import annotations

from grpo_dist.evaluation.pass_rates import Band, PassRate, Record, default_band, overview


def rate(right: int, samples: int = 8, row: int = 0) -> PassRate:
    return PassRate(row, samples, right, clipped=1)


def test_by_default_only_what_is_always_or_never_solved_is_left_out():
    for samples in (2, 3, 7, 8, 49, 64):
        band = default_band(samples)
        verdicts = [band.verdict(rate(right, samples)) for right in range(samples + 1)]
        assert verdicts == ["too_hard", *["kept"] * (samples - 1), "too_easy"]


def test_both_ends_of_a_band_belong_to_it():
    band = Band(0.25, 0.5)
    verdicts = [band.verdict(rate(right)) for right in (1, 2, 4, 5)]
    assert verdicts == ["too_hard", "kept", "kept", "too_easy"]


def test_a_record_survives_a_line_that_was_cut_off(tmp_path):
    record = Record(tmp_path / "pass_rates.jsonl")
    assert record.read() == []
    found = [rate(right, row=right) for right in range(4)]
    record.append(found[:2])
    record.append(found[2:])
    assert record.read() == found
    whole = record.path.read_bytes()
    for cut in range(1, len(whole)):
        record.path.write_bytes(whole[:cut])
        kept = record.read()
        assert kept == found[: whole[:cut].count(b"\n")]
    record.path.write_bytes(whole[:-3])
    record.keep(2)
    record.append(found[2:])
    assert record.path.read_bytes() == whole


def test_the_overview_counts_and_averages():
    found = [rate(0), rate(0), rate(2), rate(8)]
    assert overview(found, default_band(8)) == {
        "problems": 4,
        "samples": 8,
        "low": 0.125,
        "high": 0.875,
        "kept": 1,
        "too_easy": 1,
        "too_hard": 2,
        "mean_pass_rate": 10 / 32,
        "pass_at_k": 0.5,
        "clipped_ratio": 1 / 8,
        "histogram": [2, 0, 1, 0, 0, 0, 0, 0, 1],
    }
