"""System prompts and chat templates, rendered as Transformers renders them."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from grpo_dist.config.sections import DataSection
from grpo_dist.data.messages import chat_template, system_prompt
from grpo_dist.errors import DataError

RECIPE = """You are given a problem.
Think about the problem and provide your working out.
Place it between <start_working_out> and <end_working_out>.
Then, provide your solution between <SOLUTION></SOLUTION>"""
ASKED = {"role": "user", "content": " 2+2? "}
ANSWERED = {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "S"}


def section(**stated) -> DataSection:
    return DataSection(name_or_path="x", **stated)


def rendered(messages, generation=True, **stated) -> str:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(chat_template(section(**stated), None))
    return template.render(messages=messages, add_generation_prompt=generation, eos_token="<eos>")


def error_of(make, **stated) -> str:
    with pytest.raises(DataError) as raised:
        make(section(**stated))
    return str(raised.value)


def template_of(stated: DataSection) -> str:
    return chat_template(stated, None)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_recipe_template():
    assert rendered([SYSTEM, ASKED]) == "S<eos> 2+2? <start_working_out>"
    assert rendered([ASKED]) == f"{RECIPE}<eos> 2+2? <start_working_out>"
    assert rendered([SYSTEM, ASKED, ANSWERED, ASKED], generation=False) == "S<eos> 2+2? 4<eos> 2+2? "


@pytest.mark.parametrize("text", ['It\'s "so"\n\\n {{ x }} {% raw %}', "数学 🙂 é \x07", "none"])
def test_the_default_of_the_template_is_the_system_prompt_of_the_run(text):
    expected = "" if text == "none" else f"{text}<eos>"
    assert rendered([ASKED], system_prompt=text) == f"{expected} 2+2? <start_working_out>"


def test_system_prompts():
    Path("my prompt.txt").write_text("Ask ünï\nfor it.\n")
    assert system_prompt(section()) == RECIPE
    assert system_prompt(section(system_prompt="none")) is None
    assert system_prompt(section(system_prompt=None)) is None
    assert system_prompt(section(system_prompt=" ")) is None
    assert system_prompt(section(system_prompt="my prompt.txt")) == "Ask ünï\nfor it."
    for text in ("Be brief.", "/no_think", "Use a/b form.", "x" * 10_000, "Answer in file.txt and stop"):
        assert system_prompt(section(system_prompt=text)) == text


def test_system_prompt_files_that_are_not_there():
    Path("prompt.txt").write_text("x")
    Path("latin.txt").write_bytes(b"\xe9")
    message = error_of(system_prompt, system_prompt="promt.txt")
    assert (
        message == "data.system_prompt: no file 'promt.txt', and no preset of that name\n  → did you mean prompt.txt?"
    )
    assert "cannot be read as UTF-8 text" in error_of(system_prompt, system_prompt="latin.txt")


def test_chat_templates():
    Path("t.jinja").write_text(
        "{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{% break %}{% endfor %}"
    )
    assert chat_template(section(chat_template="tokenizer"), "{{ own }}") == "{{ own }}"
    assert "{% generation %}" in chat_template(section(chat_template="t.jinja"), None)


def test_chat_templates_that_cannot_be_used():
    Path("bad.jinja").write_text("{% for m in messages %}\n{{ m.content }\n{% endfor %}")
    assert "data.chat_template: bad.jinja:2: unexpected '}'" in error_of(template_of, chat_template="bad.jinja")
    assert "did you mean recipe?" in error_of(template_of, chat_template="recpie")
    assert "did you mean bad.jinja?" in error_of(template_of, chat_template="bda.jinja")
    message = error_of(template_of, chat_template="tokenizer")
    assert "has no chat template" in message
    assert message.endswith("--set data.chat_template=recipe")


@pytest.mark.heavy
def test_recipe_template_in_a_real_tokenizer(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = chat_template(section(), None)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = loaded.apply_chat_template([ASKED], tokenize=False, add_generation_prompt=True)
    assert text == f"{RECIPE}<eos> 2+2? <start_working_out>"
