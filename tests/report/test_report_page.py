"""The page: whole, harmless, the same every time, and small."""

from __future__ import annotations

import random
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic_runs as runs

from grpo_dist.errors import ReportError
from grpo_dist.report import html
from grpo_dist.report.html import _columns, render_html, write_html
from grpo_dist.report.record import read_run

VOID = {"meta", "link", "input"}
FOREIGN = {"line", "circle", "path"}


class Page(HTMLParser):
    """Every element of a page, its attributes and its text; an element left open is an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        assert tag in FOREIGN

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rendered(run: Path) -> Page:
    return Page(render_html(read_run(run)))


def hostile_run(path: Path) -> Path:
    run = runs.make_run(path, steps=3, rewards=("a", f"b{runs.HOSTILE}"))
    backend = {"name": runs.HOSTILE, "reason": runs.HOSTILE}
    for name, said in (("plan.json", runs.HOSTILE), ("environment.json", backend), ("prepared.json", None)):
        fields = {"run_name": runs.HOSTILE, "backend": said, "packages": {"x": runs.HOSTILE}}
        runs.write_json(run / name, fields)
    (run / "config.yaml").write_text(f"model: {{name_or_path: '{runs.HOSTILE.replace(chr(39), '')}'}}\n")
    fields = runs.comparison(random.Random(0), decorate=runs.HOSTILE) | {"scorer": runs.HOSTILE}
    runs.write_json(run / "comparison.json", fields)
    return run


def test_a_whole_run_shows_what_matters(tmp_path: Path) -> None:
    text = rendered(runs.make_run(tmp_path / "tiny")).text
    for words in (
        "Greedy accuracy on 256 held-out problems", "55.1%", "96.9%",
        "+41.8 percentage points, 95% interval +35.9 to +47.8. The trained model is better.",
        "match_format_exactly", "Completion length, tokens", "Groups without reward deviation", "Learning rate",
        "Loss", "Tokens clipped by the policy ratio",
        "Gradient norm", "Tokens per second", "Entropy", "Flipped problems", "All problems", "name_or_path: embedded",
        "2.13.0", "10 prompts longer than 201 tokens were dropped", "centred mean over 5 steps",
    ):  # fmt: skip
        assert words in text


def test_kl_and_sampling_difference_only_when_logged(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3)
    assert "KL to the reference" not in rendered(run).text
    records = [{"step": 1, "kl": 0.1, "sampling/sampling_logp_difference/mean": 0.01}]
    runs.write_metrics(run, records)
    text = rendered(run).text
    assert "KL to the reference" in text and "Sampler against trainer" in text


def test_rollouts_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    text = rendered(runs.make_run(tmp_path / "run", served=True)).text
    for words in (
        "Seconds per step generation policy sync rest", "prompt and completion completion only prompt only",
        "Utilisation servers at work training idle", "Groups drawn per generation groups drawn groups kept",
        "Sampler against trainer, nats per token mean largest canary", "median; vllm server, 2 replicas", "66.1 MB",
        "Effective sample effective sample completions weighed below 0.1",
    ):  # fmt: skip
        assert words in re.sub(r" [^ ]+ → [^ ]+", "", text)
    old = rendered(runs.make_run(tmp_path / "old")).text
    for words in (
        "Seconds per step",
        "prompt only",
        "Utilisation",
        "Groups drawn",
        "Policy sync",
        "Sampler",
        "Effective sample",
    ):
        assert words not in old


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = hostile_run(tmp_path / "run")
    runs.write_samples(run, [1, 2], decorate=runs.HOSTILE)
    found = rendered(run)
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert runs.HOSTILE in " ".join(found.words)


def test_the_page_asks_for_nothing(tmp_path: Path) -> None:
    html = render_html(read_run(runs.make_run(tmp_path / "run")))
    assert not re.search(r"https?://|//[a-z]|@import|url\(", html)
    addresses = [value for name, value in Page(html).attributes if name in {"src", "href", "xlink:href", "action"}]
    assert addresses and all(value.startswith(("#", "data:,")) for value in addresses)
    assert "default-src 'none'" in html


def test_links_lead_somewhere(tmp_path: Path) -> None:
    found = rendered(runs.make_run(tmp_path / "run"))
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for name, value in found.attributes if name == "href" and value[0] == "#"} <= set(ids)
    assert {value for name, value in found.attributes if name == "for"} <= set(ids)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pages = []
    for place in ("a", "b"):
        run = runs.make_run(tmp_path / place / "run", seed=3)
        runs.write_samples(run, [1, 25, 50])
        pages.append(write_html(read_run(run)).read_bytes())
    assert pages[0] == pages[1]


@pytest.mark.parametrize("steps", [1, 14, 10_000])
def test_any_number_of_steps(tmp_path: Path, steps: int) -> None:
    html = render_html(read_run(runs.make_run(tmp_path / "run", steps=steps, compared=False)))
    assert not re.search(r"\b(nan|inf|none)\b", " ".join(re.findall(r"<svg.*?</svg>", html, re.S)), re.I)
    assert ("lowest and highest of neighbouring steps" in html) == (steps > 320)
    assert len(html) < 400_000


def test_no_step_yet(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", compared=False)
    (run / "metrics.jsonl").write_text("")
    text = rendered(run).text
    assert "No step has been logged yet." in text
    assert "Training has not ended" in text


def test_nulls_only(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", compared=False)
    runs.write_metrics(run, [{"step": 1, "reward": None, "entropy": None, "kl": None}])
    found = rendered(run)
    assert "svg" not in found.tags
    assert found.text.count("No value has been logged.") == 7
    assert "Entropy" not in found.text


def test_only_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    text = rendered(tmp_path).text
    assert "The run has no config.yaml." in text and "The run has no environment.json." in text


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 0.2, "is better"), (-0.2, -0.1, "is worse"), (-0.1, 0.1, "The interval includes zero")],
)
def test_the_verdict_follows_the_interval(tmp_path: Path, low: float, high: float, said: str) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    gap = {"difference": {"estimate": (low + high) / 2, "low": low, "high": high}}
    runs.write_json(run / "comparison.json", runs.comparison(random.Random(0), problems=3) | gap)
    assert said in rendered(run).text


def interval(estimate: float, low: float, high: float) -> dict[str, float]:
    return {"estimate": estimate, "low": low, "high": high}


NONE = interval(0.0, -0.1, 0.1)


@pytest.mark.parametrize(
    ("mean_at_k", "pass_at_k", "said"),
    [
        (NONE, NONE, "includes zero: no difference is shown."),
        (interval(0.1, 0.02, 0.18), NONE, "includes zero, but mean@8 is higher: +10.0 (+2.0 to +18.0)."),
        (NONE, interval(-0.1, -0.2, -0.01), "includes zero, but pass@8 is lower: −10.0 (−20.0 to −1.0)."),
        (
            interval(0.1, 0.02, 0.18),
            interval(-0.1, -0.2, -0.01),
            "but mean@8 is higher: +10.0 (+2.0 to +18.0) and pass@8 is",
        ),
    ],
)
def test_what_the_samples_show_is_not_called_no_difference(tmp_path: Path, mean_at_k, pass_at_k, said) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    gaps = {"greedy_accuracy": NONE, "mean_at_k": mean_at_k, "pass_at_k": pass_at_k}
    found = runs.comparison(random.Random(0), problems=3) | {"difference": NONE, "differences": gaps}
    runs.write_json(run / "comparison.json", found)
    text = rendered(run).text
    assert said in text
    assert ("no difference" in text) == (mean_at_k is pass_at_k is NONE)


def test_an_older_comparison_is_read_by_intervals_that_do_not_touch(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    found = runs.comparison(random.Random(0), problems=3) | {"difference": NONE}
    del found["differences"], found["different_problems"]
    runs.write_json(run / "comparison.json", found)
    text = rendered(run).text
    assert "includes zero, but mean@8 is higher: +42.0" in text
    assert "no difference" not in text


def test_a_worse_sampler_is_told_beside_better_greedy_answers(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    found = runs.comparison(random.Random(0), problems=3)
    found["differences"]["mean_at_k"] = interval(-0.2, -0.3, -0.1)
    runs.write_json(run / "comparison.json", found)
    assert "The trained model is better, but mean@8 is lower: −20.0 (−30.0 to −10.0)." in rendered(run).text


def test_nothing_right_at_all_points_at_the_scorer(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    found = runs.comparison(random.Random(0), problems=3)
    for model in ("base", "trained"):
        found[model] |= {name: interval(0.0, 0.0, 0.1) for name in ("greedy_accuracy", "mean_at_k", "pass_at_k")}
    runs.write_json(run / "comparison.json", found)
    text = rendered(run).text
    assert "No answer of either model was judged right" in text
    assert "evaluation.scorer (accuracy) cannot read them" in text


def test_repeated_problems_are_told_beside_the_rows(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    found = runs.comparison(random.Random(0), problems=30) | {"different_problems": 12}
    runs.write_json(run / "comparison.json", found)
    assert "Greedy accuracy on 30 held-out problems (12 different)" in rendered(run).text


def test_a_run_that_is_not_compared_says_so(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1, compared=False)
    (run / "adapter").mkdir()
    assert "have not been compared yet" in rendered(run).text
    (run / "config.yaml").write_text("evaluation: {enabled: false}\n")
    assert "evaluation.enabled is false" in rendered(run).text


def test_samples_are_whole_groups_with_the_answer_and_how_many_are_right(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    run = runs.make_run(tmp_path / "run", steps=40)
    runs.write_samples(run, list(range(1, 41)))
    table = pyarrow.parquet.read_table(run / "completions" / "completions_00040.parquet").to_pylist()
    prompt = table[0]["prompt"][-1]["content"]
    (run / "data").mkdir()
    known = {
        "prompt": [[{"role": "user", "content": prompt}], [{"role": "user", "content": "?"}]],
        "answer": ["57", "no"],
    }
    pyarrow.parquet.write_table(pyarrow.table(known), run / "data" / "train.parquet")
    text = rendered(run).text
    shown = [int(step) for step in re.findall(r"Step (\d+)", text)]
    assert shown == [1, 9, 17, 24, 32, 40]
    right = sum(row["check_answer"] >= 3.5 for row in table[:8])
    assert f"answer 57 · {right} of 8 right · advantages " in text
    assert "advantage 1.67" in text and "advantage −0.667" in text
    assert "check_answer 5 · check_numbers 2.5" in text
    assert text.count("policy 39") == 8 and "policy_version" not in text


def test_what_was_found_and_warned_of_is_on_the_page(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=3)
    assert "Warnings" not in rendered(run).text
    found = [
        {"name": "junk-pays", "status": "warning", "what": "malformed pays 13", "hint": "use strict_format"},
        {"name": "gold", "status": "ok", "what": "all is well"},
    ]
    runs.write_json(run / "rewards_preflight.json", {"findings": found})
    runs.write_json(run / "plan.json", runs.plan(3) | {"warnings": ["grpo.save_steps: too rare"]})
    (run / "logs" / "attempt-1").mkdir(parents=True)
    (run / "logs" / "attempt-1" / "train.log").write_text("step 1\nwarning: half were cut\nwarning: half were cut\n")
    text = rendered(run).text
    for told in ("rewards malformed pays 13 → use strict_format", "grpo.save_steps: too rare"):
        assert told in text
    assert text.count("half were cut") == 1 and "all is well" not in text


@pytest.mark.parametrize("tiles", range(5, 16))
def test_no_row_of_figures_has_one_alone(tiles: int) -> None:
    wide, medium = _columns(tiles)
    assert tiles % wide != 1 and (tiles % medium != 1 or tiles % 12 == 1)


def test_an_unfinished_completions_file_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = runs.make_run(tmp_path / "run", steps=2)
    runs.write_samples(run, [1])
    (run / "completions" / "completions_00002.parquet").write_bytes(b"PAR1 half")
    assert re.findall(r"Step (\d+)", rendered(run).text) == ["1"]
    (run / "completions" / "completions_00001.parquet").write_bytes(b"")
    assert "None of the completions files can be read." in rendered(run).text


def test_without_pyarrow_the_page_says_how_to_get_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    (run / "completions").mkdir()
    (run / "completions" / "completions_00001.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in rendered(run).text


def test_a_big_run_stays_below_two_megabytes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    run = runs.make_run(tmp_path / "run", steps=10_000)
    (run / "config.yaml").write_text("note: |\n  " + '"' * 100_000)
    runs.write_json(run / "comparison.json", runs.comparison(random.Random(0), problems=3000, decorate='"' * 3000))
    runs.write_samples(run, list(range(1, 7)), decorate='"' * 100_000)
    path = write_html(read_run(run))
    assert path.stat().st_size < 2_000_000
    text = Page(path.read_text()).text
    assert "300 of 3,000 problems" in text and " characters … " in text


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    runs.write_json(run / "comparison.json", runs.comparison(random.Random(0), problems=2, decorate="\ud83d"))
    assert write_html(read_run(run)).read_text(encoding="utf-8")


def test_the_page_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    before = sorted(run.iterdir())
    (run / "report.html").write_text("old")
    assert write_html(read_run(run)) == run / "report.html"
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(run.iterdir()) == sorted([*before, run / "report.html"])


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    run = runs.make_run(tmp_path / "run", steps=1)
    (run / "report.html").mkdir()
    with pytest.raises(ReportError, match=r"report\.html: cannot be written") as caught:
        write_html(read_run(run))
    assert str(run) in caught.value.hint
    assert not list(run.glob(".report*"))


def test_a_long_text_keeps_its_end() -> None:
    found = html.cut("a" * 5000 + "<SOLUTION>34</SOLUTION>", 300)
    assert found.endswith("<SOLUTION>34</SOLUTION>")
    assert "4,723 characters" in found
    assert html.cut("short", 300) == "short"
