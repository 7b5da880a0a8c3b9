"""Columns of real schemas as prompts and answers."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest
from datasets import Dataset

from grpo_dist.config.sections import DataSection
from grpo_dist.data.columns import Tally, map_columns
from grpo_dist.data.identity import KEY
from grpo_dist.data.messages import fold_system, system_adder, template_accepts_system, to_messages, with_system
from grpo_dist.data.problems import boxed, gsm8k, to_problems
from grpo_dist.data.text import as_text
from grpo_dist.errors import DataError

GSM8K = [
    {"question": "Natalia sold 48 clips …", "answer": "She sold 48/2 = <<48/2=24>>24.\n#### 72"},
    {"question": "Weng earns $12 …", "answer": "Weng earns …\n#### 1,234"},
]
DAPO = [
    {
        "prompt": "In triangle ABC …",
        "solution": "34",
        "data_source": "math_dapo",
        "source_prompt": [{"role": "user", "content": "Solve … In triangle ABC …"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "9a9b6eb4"},
    }
]


def problems(rows, *, need_answers=True, system=None, tally=None, **stated):
    section = DataSection(name_or_path="rows.jsonl", **stated)
    found = to_problems(Dataset.from_list(rows), section, system_adder(system, True), need_answers, tally or Tally())
    return found.remove_columns(KEY)


def error_of(rows, **keywords) -> str:
    with pytest.raises(DataError) as raised:
        problems(rows, **keywords)
    return str(raised.value)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_gsm8k():
    dataset = problems(GSM8K, columns={"prompt": "question"}, answer_extractor="gsm8k", system="Think.")
    assert dataset.column_names == ["prompt", "answer"]
    assert dataset["answer"][:] == ["72", "1234"]
    assert dataset[0]["prompt"] == [{"role": "system", "content": "Think."}, *user("Natalia sold 48 clips …")]


def test_dapo_keeps_all_other_columns():
    dataset = problems(DAPO, columns={"answer": "solution"})
    assert dataset[0] == {
        "prompt": user("In triangle ABC …"),
        "answer": "34",
        **{name: value for name, value in DAPO[0].items() if name not in ("prompt", "solution")},
    }


def test_columns_may_trade_names_and_serve_twice():
    rows = [{"prompt": "p", "question": "q", "answer": "a"}]
    traded = problems(rows, columns={"prompt": "question", "question": "prompt"})
    assert traded[0] == {"prompt": user("q"), "answer": "a", "question": "p"}
    twice = problems([{"text": "x"}], columns={"prompt": "text", "answer": "text"})
    assert twice[0] == {"prompt": user("x"), "answer": "x"}


def test_missing_columns():
    assert error_of(GSM8K) == (
        "data.columns: rows.jsonl has no column 'prompt'; there is: question, answer\n"
        "  → --set 'data.columns={prompt: question}'"
    )
    message = error_of([{"problem": "p", "expected answer": "1"}])
    assert "has no column 'prompt', 'answer'; there is: problem, expected answer" in message
    assert "no column 'anwser' (for 'answer')" in error_of(
        [{"prompt": "p", "answer ": "1"}], columns={"answer": "anwser"}
    )
    quoted = error_of([{"it's": "p", "answer": "1"}], columns={"prompt": "its"})
    assert quoted.endswith("""--set 'data.columns={prompt: '"'"'it'"'"''"'"'s'"'"'}'""")


def test_a_mapping_that_hides_a_column():
    message = error_of([{"prompt": "p", "question": "q", "answer": "a"}], columns={"prompt": "question"})
    assert "data.columns: prompt: question would hide the column 'prompt' that is there already" in message
    assert "--set 'data.columns={prompt: question, original_prompt: prompt}'" in message


def test_names_of_trl():
    tally = Tally()
    dataset = problems([{"prompt": "p", "answer": "a", "completions": "c", "image": None}], tally=tally)
    assert dataset.column_names == ["prompt", "answer", "dataset_completions", "dataset_image"]
    assert tally.notes == [
        "columns renamed, TRL uses their names: completions → dataset_completions, image → dataset_image"
    ]
    message = error_of([{"prompt": "p", "answer": "a", "x": "c"}], columns={"completions": "x"})
    assert "data.columns: 'completions' is a name TRL uses itself" in message
    assert "--set data.columns.dataset_completions=x" in message


def test_types_of_other_columns_survive():
    row = {"prompt": "p", "when": datetime.date(2024, 1, 1), "scores": [1.5, 2.0], "n": 3}
    dataset = map_columns(Dataset.from_list([row]), DataSection(name_or_path="x"), ("prompt",))
    assert dataset[0] == row


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (34, "34"),
        (34.0, "34"),
        (-0.5, "-0.5"),
        (1e22, "1e+22"),
        ("034", "034"),
        (True, "True"),
        (Decimal("1.50"), "1.50"),
        (10**30, str(10**30)),
        (datetime.date(2024, 1, 1), "2024-01-01"),
    ],
)
def test_answers_as_text(value, text):
    assert as_text(value) == text


def test_numbers_with_a_gap_stay_integers():
    dataset = problems([{"prompt": "p", "answer": 34}, {"prompt": "q", "answer": None}], need_answers=False)
    assert dataset["answer"][:] == ["34", None]


def test_missing_answers():
    rows = [{"prompt": "p", "answer": "1"}, {"prompt": "q", "answer": None}, {"prompt": "r", "answer": " "}]
    assert "column 'answer': 2 rows of 3 without an answer, the first is row 2" in error_of(rows)
    assert "1 row of 1 without an answer" in error_of([{"prompt": "p", "answer": float("nan")}])
    assert "row 1: an answer is text or a number; this is \"{'value': '34'}\"" in error_of(
        [{"prompt": "p", "answer": {"value": "34"}}]
    )


def test_answers_are_optional_when_nothing_reads_them():
    assert problems([{"prompt": "p"}], need_answers=False).column_names == ["prompt"]
    assert "no column 'solution'" in error_of([{"prompt": "p"}], need_answers=False, columns={"answer": "solution"})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a #### b #### 7 ", "7"),
        ("#### 1,234,567.5", "1234567.5"),
        ("#### 1,2", "1,2"),
        ("#### -2,000\n", "-2000"),
        ("no mark", None),
        ("empty ####", None),
    ],
)
def test_gsm8k_extractor(text, answer):
    assert gsm8k(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{34}.", "34"),
        (r"\boxed{1} then \boxed{\frac{1}{2^{3}}}$", r"\frac{1}{2^{3}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed {x}", "x"),
        (r"\boxed{closed} and \boxed{open", "closed"),
        (r"\boxed{}", None),
        ("34", None),
    ],
)
def test_boxed_extractor(text, answer):
    assert boxed(text) == answer


def test_an_extractor_that_finds_nothing():
    rows = [{"prompt": f"p{n}", "answer": f"#### {n}"} for n in range(200)] + [{"prompt": "bad", "answer": "just 7"}]
    tally = Tally()
    assert len(problems(rows, answer_extractor="gsm8k", tally=tally)) == 200
    assert tally.notes == [
        "dropped 1 row: answer_extractor 'gsm8k' finds no answer in 1 row of 201, the first is row 201: 'just 7'"
    ]
    assert "in 1 row of 100, the first is row 100" in error_of(rows[101:], answer_extractor="gsm8k")
    message = error_of(rows[100:], answer_extractor="boxed")
    assert "'boxed' finds no answer in 101 rows of 101, the first is row 1: '#### 100'" in message
    assert "--set data.answer_extractor=none takes the column as it is" in message
    assert len(problems(rows, answer_extractor="boxed", need_answers=False)) == 201


def test_empty_prompts_are_dropped():
    rows = [{"prompt": text, "answer": str(n), "n": n} for n, text in enumerate(["a", "", None, " \n", "b"])]
    tally = Tally()
    dataset = problems(rows, tally=tally)
    assert dataset["n"][:] == [0, 4]
    assert dataset["answer"][:] == ["0", "4"]
    assert tally.notes == ["dropped 3 rows of 5 with an empty prompt"]
    assert tally.counts["empty_prompts"] == 3
    assert "column 'prompt': all 2 prompts are empty" in error_of([{"prompt": "", "answer": "1"}] * 2)


CONVERSATION = [*user("Hi"), {"role": "assistant", "content": "Yes?"}, *user("2+2?")]


def test_conversations_are_kept():
    own = [{"role": "system", "content": "mine"}, *CONVERSATION]
    dataset = problems([{"prompt": own}, {"prompt": CONVERSATION}], need_answers=False, system="ours")
    assert dataset["prompt"][:] == [own, [{"role": "system", "content": "ours"}, *CONVERSATION]]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (7, "row 1: a prompt is text or a list of messages, this is '7'"),
        (
            [{"speaker": "a", "text": "x"}],
            "a message has `role` and `content` (or `from` and `value`), this has the keys",
        ),
        ([{"role": "tool", "content": "x"}], "unknown role 'tool' in a message"),
        ([{"from": "function_call", "value": "x"}], "unknown role 'function_call' in a message"),
        ([{"role": "user", "content": None}], "the content of a message is not text: 'None'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "the content of a message holds a part of type 'image'"),
        ([*user("x"), {"role": "system", "content": "y"}], "the last message is from 'system': 'y'"),
        ([{"role": "user", "content": "x", "name": "Bo"}], "a message has more than `role` and `content`: name"),
    ],
)
def test_malformed_conversations(prompt, said):
    assert said in error_of([{"prompt": prompt}], need_answers=False)


def test_messages_without_words():
    assert to_messages([], "row 1") is None
    assert to_messages([{"role": "system", "content": "only"}], "row 1") is None
    assert to_messages([{"role": "user", "content": "x", "name": None}], "row 1") == user("x")


def test_folding_the_system_prompt():
    assert fold_system(with_system(CONVERSATION, "S")) == [*user("S\n\nHi"), *CONVERSATION[1:]]
    assert fold_system(CONVERSATION) == CONVERSATION
    assert system_adder(None, False)(CONVERSATION) == CONVERSATION


def render_gemma(messages) -> str:
    if messages[0]["role"] == "system":
        raise ValueError("System role not supported")
    return "".join(f"<{message['role']}>{message['content']}" for message in messages)


def test_templates_and_the_system_role():
    assert template_accepts_system(lambda messages: "".join(message["content"] for message in messages))
    assert not template_accepts_system(render_gemma)
    assert not template_accepts_system(lambda messages: messages[-1]["content"])
    with pytest.raises(DataError, match="it leaves the user's message out: 'hello'"):
        template_accepts_system(lambda messages: "hello")
    with pytest.raises(DataError, match="it cannot render a user message: 'tools'"):
        template_accepts_system(lambda messages: messages[0]["content"] + {}["tools"])


def test_unicode_and_very_long_prompts():
    rows = [{"prompt": "🧮 √2 \u2028 ﷽ \x00" + "x" * 200_000, "answer": "½"}]
    dataset = problems(rows)
    assert dataset[0] == {"prompt": user(rows[0]["prompt"]), "answer": "½"}


VERL = {
    "data_source": "math",
    "prompt": user("2+2?"),
    "reward_model": {"style": "rule", "ground_truth": "4"},
    "extra_info": {"index": 0, "question": "2 + 2?", "answers": ["4"]},
}


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("reward_model.ground_truth", "4"),
        ("extra_info.answers", "4"),
        ("extra_info.answers.0", "4"),
        ("extra_info.index", "0"),
    ],
)
def test_a_dotted_path_names_a_column_inside_a_column(path, answer):
    found = problems([VERL, VERL], columns={"answer": path})
    assert found["answer"][:] == [answer, answer]
    assert found[0]["reward_model"] == VERL["reward_model"]  # whoever reads it by its name still can


def test_paths_into_json_text_and_names_with_dots():
    text = {"prompt": "p", "reward_model": '{"ground_truth": "4"}', "a.b": "5"}
    assert problems([text], columns={"answer": "reward_model.ground_truth"})["answer"][:] == ["4"]
    assert problems([text], columns={"answer": "a.b"})["answer"][:] == ["5"]


@pytest.mark.parametrize(
    ("row", "stated", "hint"),
    [
        (VERL, {}, "{answer: reward_model.ground_truth}"),
        (VERL, {"answer": "reward_model"}, "{answer: reward_model.ground_truth}"),
        (VERL, {"answer": "reward_model.groundtruth"}, "{answer: reward_model.ground_truth}"),
        ({"prompt": "p", "meta": {"info": {"final_answer": 4}}}, {}, "{answer: meta.info.final_answer}"),
        ({"prompt": "p", "answer": {"value": "4", "unit": "m"}}, {}, "{answer: answer.value}"),
    ],
)
def test_the_hint_to_a_nested_answer_works_as_it_stands(row, stated, hint):
    assert error_of([row], columns=stated).endswith(f"--set 'data.columns={hint}'")
    path = hint.removeprefix("{answer: ").removesuffix("}")
    assert problems([row], columns={"answer": path})["answer"][:] == ["4"]


@pytest.mark.parametrize(
    ("value", "answer"), [(["4"], "4"), ([4.0], "4"), ('["4"]', "4"), (["4", "4"], "4"), ([["4"]], "4")]
)
def test_a_list_of_one_answer_is_that_answer(value, answer):
    assert problems([{"prompt": "p", "answer": value}])["answer"][:] == [answer]


@pytest.mark.parametrize("value", ["[4]", "[1, 2]", '["a", "b"]'])
def test_an_answer_that_is_written_as_a_list_stays_one(value):
    assert problems([{"prompt": "p", "answer": value}])["answer"][:] == [value]


def test_several_answers_are_an_error_that_says_how_to_take_one():
    message = error_of([{"prompt": "p", "answer": ["1", "2"]}])
    assert "row 1: 2 answers, one is compared; this is" in message
    assert message.endswith("--set 'data.columns={answer: answer.0}'")
    assert "1 row of 1 without an answer" in error_of([{"prompt": "p", "answer": []}])


def test_answers_that_are_whole_solutions_are_told():
    tally = Tally()
    problems([{"prompt": "p", "answer": "So\n" * 6 + "#### 7"}, {"prompt": "q", "answer": "8"}], tally=tally)
    (note,) = tally.notes
    assert "1 answer of 2 have more than 4 lines or 400 characters" in note
    assert note.endswith("--set data.answer_extractor=gsm8k takes '7'")
    problems([{"prompt": "p", "answer": "x" * 401}], tally=tally)
    assert tally.notes[-1].endswith("--set data.columns.answer=COLUMN")


def test_conversations_as_sharegpt_has_them():
    said = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "Hi", "weight": 0},
        {"from": "gpt", "value": "Yes?"},
        {"from": "human", "value": "2+2?"},
        {"from": "gpt", "value": "4"},
    ]
    tally = Tally()
    found = problems([{"conversations": said, "answer": "4"}], columns={"prompt": "conversations"}, tally=tally)
    assert found[0]["prompt"] == [{"role": "system", "content": "S"}, *CONVERSATION]
    assert tally.notes == ["1 conversation of 1 end with an answer, which is left out"]


def test_a_message_of_text_parts_is_its_text():
    parts = [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]
    assert to_messages([{"role": "user", "content": parts}], "row 1") == user("2+2?")


@pytest.mark.parametrize(
    ("name", "cell"), [("image", "0.png"), ("images", [{"bytes": b"x", "path": None}]), ("audio", "a.wav")]
)
def test_pictures_are_refused_unless_a_reward_alone_reads_them(name, cell):
    rows = [{"prompt": "p", "answer": "1", name: None}, {"prompt": "q", "answer": "2", name: cell}]
    message = error_of(rows)
    assert f"1 row of 2 come with something in the column {name!r}, the first is row 2" in message
    assert f"--set 'data.columns={{dataset_{name}: {name}}}'" in message
    assert f"dataset_{name}" in problems(rows, columns={f"dataset_{name}": name}).column_names


def test_a_column_that_a_reward_reads_is_kept_with_its_answer():
    rows, section = (
        Dataset.from_list([{"question": "q", "ground_truth": "1"}]),
        DataSection(name_or_path="x", columns={"prompt": "question", "answer": "ground_truth"}),
    )
    found = to_problems(rows, section, system_adder(None, True), True, Tally(), lambda name: name == "ground_truth")
    assert (found["answer"][:], found["ground_truth"][:]) == (["1"], ["1"])
    assert "question" not in found.column_names


@pytest.mark.parametrize(
    "written",
    [
        '[{"role": "user", "content": "1+1?"}]',
        "[{'role': 'user', 'content': '1+1?'}]",
        '[{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "2"}]',
        ' {"content": "1+1?", "role": "user"}',
    ],
)
def test_messages_written_as_text_are_read_as_messages(written):
    tally = Tally()
    found = problems([{"prompt": written, "answer": "2"}], tally=tally)
    assert found["prompt"][0] == [{"role": "user", "content": "1+1?"}]
    assert "messages written as text: 1 of 1 prompt, read as messages" in tally.notes


def test_messages_cut_off_in_their_text_are_refused_with_their_row():
    rows = [{"prompt": "1+1?", "answer": "2"}, {"prompt": '[{"role": "user", "content": "1+', "answer": "2"}]
    assert "row 2: this begins like messages" in error_of(rows)


@pytest.mark.parametrize("text", ['{"a": 1} is JSON. Which key?', "[1, 2]: the sum?", '[{"name": "x"}]'])
def test_other_text_in_brackets_stays_a_question(text):
    assert problems([{"prompt": text, "answer": "2"}])["prompt"][0][0]["content"] == text


def test_answers_in_odd_notations_are_read_or_told():
    tally = Tally()
    found = problems([{"prompt": f"{n}", "answer": a} for n, a in enumerate(["['0']", '["7"]', "1\n2"])], tally=tally)
    assert found["answer"][:] == ["0", "7", "1\n2"]
    assert "lists of one answer written as text: 2 of 3; that answer is taken" in tally.notes
    assert "answers of several lines: 1 of 3, the first is row 3" in " ".join(tally.notes)
