"""`advise` on data files of four kinds, on questions, and on what the base model answered."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from grpo_dist.cli import main
from grpo_dist.evaluation.pass_rates import PassRate

ESSAY = "Dear neighbour, thank you for looking after the garden while we were away for so long."
KINDS = {
    "numbers": [{"question": f"{n} + {n}?", "answer": 2 * n} for n in range(300)],
    "essays": [{"prompt": "write", "completion": ESSAY}] * 300,
    "preferences": [{"prompt": "write", "chosen": ESSAY, "rejected": "no"}] * 50,
    "prompts": [{"prompt": "make this code faster"}] * 50,
}


@pytest.fixture(autouse=True)
def place(workplace):
    for kind, rows in KINDS.items():
        (workplace / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workplace


def advise(*arguments: str, code: int = 0, answers: str | None = None) -> Result:
    result = CliRunner().invoke(main, ("advise", *arguments), input=answers)
    assert result.exit_code == code, result.output
    return result


def advice(*arguments: str) -> dict:
    return json.loads(advise(*arguments, "--json").stdout)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("numbers", (), "rft"),
        ("essays", (), "sft"),
        ("preferences", (), "preference"),
        ("prompts", ("--verifiable",), "rft"),
        ("prompts", ("--not-verifiable",), "preference"),
    ],
)
def test_a_data_file_of_each_kind(kind, options, expected):
    found = advice("--data", f"{kind}.jsonl", *options)
    assert found["advice"] == expected
    assert found["data"]["rows"] == len(KINDS[kind])
    assert all(reason["why"] and reason["source"] for reason in found["reasons"])


def test_options_come_before_what_the_data_tells():
    assert advice("--data", "numbers.jsonl", "--no-reasoning")["advice"] == "sft"
    assert advice("--data", "numbers.jsonl", "--labels", "100000")["advice"] == "sft"
    assert advice("--data", "numbers.jsonl", "--base", "never")["advice"] == "warm-start"


def test_without_a_terminal_an_open_question_names_its_option():
    assert "give --verifiable or --not-verifiable" in advise("--data", "prompts.jsonl", code=2).stderr
    assert (
        "data: 50 rows, no labels found in prompt; --answer COLUMN" in advise("--data", "prompts.jsonl", code=2).stderr
    )
    assert "give --labels N" in advise(code=2).stderr
    assert "give --reasoning or --no-reasoning" in advise("--labels", "500", "--verifiable", code=2).stderr


def test_on_a_terminal_only_what_is_open_is_asked(monkeypatch):
    monkeypatch.setattr("grpo_dist.cli.options.at_a_terminal", lambda: True)
    result = advise("--json", answers="500\ny\nn\n")
    assert json.loads(result.stdout)["facts"] == {"labels": "some", "verifiable": "yes", "reasoning": "no"}
    assert result.stderr.count("?") == 3
    assert advise("--labels", "0", "--json", answers="n\n").stderr.count("?") == 1
    assert advise("--data", "essays.jsonl", "--json").stderr == ""
    asked = advise("--data", "prompts.jsonl", answers="n\n")
    assert "data: 50 rows, no labels found in prompt" in asked.stderr
    assert "50 rows" not in asked.stdout


def test_what_the_base_model_answers_decides(monkeypatch):
    def solving(*right: int) -> dict:
        asked = []

        def stub(config, work, terminal, *, command):
            asked.append((config.evaluation.num_samples, config.data.max_samples, config.evaluation.temperature))
            return [PassRate(row, 4, count, 0) for row, count in enumerate(right)]

        monkeypatch.setattr("grpo_dist.launch.commands.pass_rates", stub)
        found = advice("--config", "tiny.yaml", "--samples", "4", "--problems", "9")
        assert asked == [(4, 9, None)]
        return found

    sometimes = solving(0, 1, 4)
    assert (sometimes["advice"], sometimes["facts"]["base"]) == ("rft", "sometimes")
    assert (sometimes["base"]["pass_at_k"], sometimes["base"]["kept"]) == (pytest.approx(2 / 3), 1)
    assert solving(0, 0)["advice"] == "warm-start"
    assert solving(4, 4)["advice"] == "harder"


def test_the_model_is_not_asked_for_nothing(monkeypatch):
    monkeypatch.setattr("grpo_dist.launch.commands.pass_rates", None)
    result = advise("--config", "tiny.yaml", "--samples", "4", "--no-reasoning")
    assert "SFT: supervised fine-tuning" in result.stdout
    assert "does not depend" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--samples", "4"), "--config CONFIG"),
        (("--answer", "x"), "give --data or --config too"),
    ],
)
def test_options_that_need_another_say_which(arguments, words):
    assert words in advise(*arguments, code=2).stderr


def test_a_person_reads_what_was_seen_why_and_what_to_do():
    told = advise("--data", "numbers.jsonl").stdout
    assert "300 rows, 300 labels in 'answer': 100% numbers" in told
    assert "RFT: reinforcement fine-tuning with GRPO" in told
    assert "grpo-dist filter CONFIG" in told
    assert "50 rows, answers that are judged, no labels found\n" in advise("--data", "preferences.jsonl").stdout
    assert "[1] our own rule of thumb" in told
    assert "[2] Addair and Garg 2025, https://predibase.com/blog/how-rein" in told
