r"""Finds the final answer in a text, in any of the forms `preflight.forms.FORMS`.

A mark (tags, a box, `####`, fenced code, words) may occur several times. The last answer counts, together with those
before it that it does not replace: `\boxed{3} or \boxed{-3}` is a list of two. So no answer is right only because one
of several guesses is. math-verify joins such boxes as well; Minerva's evaluation takes the last box.

Every function takes linear time on any text and returns None if there is no such answer.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

from grpo_dist.rewards.answers.equal import equal
from grpo_dist.rewards.answers.parse import readings
from grpo_dist.rewards.preflight.forms import EOS_TOKEN, FORMS, SOLUTION_END, SOLUTION_START
from grpo_dist.rewards.prose import around_last_number

MAX_ALONE = 200
"""Most characters of a text that is only an answer."""
MAX_BETWEEN = 300
"""Most characters between two answers that are given together."""
MAX_TOGETHER = 20
MAX_STATED = 4000
_MAX_FENCE = 4000
_MAX_JSON = 4000

_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|\\boxed(?:\s+|(?=[0-9-]))(?P<bare>[^\s{}$\\]+)|\\.|[{}]", re.DOTALL)
_TAGS = {tag: re.compile(rf"<{tag}>((?:(?!</?{tag}>).)*+)</{tag}>", re.DOTALL) for tag in ("SOLUTION", "answer")}
_HASHES = re.compile(r"####[ \t]*+([^\n#]*[^\s#][^\n]*)")
_HEADING = re.compile(r"(?:step|part|case|final answer|answer|solution|conclusion|verification|check)\b|.*:$", re.I)
_FENCE = re.compile(r"```[^\n`]*\n([^`]*)\n?```\s*")

_COMMAND = re.compile(r"\\[A-Za-z]+|\\text\{[^{}]*\}")
_WORD = re.compile(r"[A-Za-z]{3,}|\b(?:so|is|we|it|he|as|by|if|or)\b")
_MATHEMATICAL = re.compile(r"\\[A-Za-z]|^[(\[{]|[0-9][a-df-zA-Z]|[A-Za-z]\^")

_NOT_OURS = "".join(
    f"(?<!{words} )"
    for words in ("if the", "if my", "suppose the", "whether the", "wrong", "incorrect", "initial", "earlier",
                  "previous", "first")
)  # fmt: skip
_IS = r"(?: is| are| would be| must be| should be| will be| has to be| equals| turns out to be|:|=| =|\*\*:)"
_DISPLAY = r"(?:\*\*)?:?\s*+(?:(?:\\\[|\$\$)[ \t]*\n\s*+)?"
_SUBJECT = (
    r"(?:answers?(?:\*\*)?(?: to [^.?!\n]{1,80}?)?"
    r"|(?:correct|right|best) (?:answer )?(?:option|choice|alternative|statement)s?)"
)
_STATED = re.compile(
    rf"{_NOT_OURS}\b{_SUBJECT}(?:,? (?:then|thus|therefore|hence|indeed),?)?{_IS}{_DISPLAY}"
    rf"|^[#* ]*+(?:the )?(?:final )?answer[* ]*\n\s*+{_DISPLAY}",
    re.IGNORECASE | re.MULTILINE,
)
_STATEMENT_ENDS = re.compile(
    r"\.(?=\s|$)|\n|<\||</s>|,? \(?(?:because|since|so that|which|as we|rather than|instead of)\b"
    r"|[,;] (?:it|we|this|that|here|as|where)\b| (?:in total|altogether|in all|overall)\b"
    r"|,? \(?not (?=[-$\\(]*(?:[0-9]|[A-K]\b))"
)
_LEADS = re.compile(
    r"(?:simply|indeed|just|only|exactly|precisely|therefore|thus|hence|then|now|also|again|clearly|obviously|certainly|"
    r"definitely|actually|really|finally|probably|approximately|about|roughly|around|either|both|of course|in fact|"
    r"equal to|given by|going to be|found to be|to be)\b[,:]? *",
    re.IGNORECASE,
)
_SAYS_NOTHING = re.compile(
    r"(?:correct|right|wrong|incorrect|verified|confirmed|as follows|below|above|unique|valid|consistent|reasonable|"
    r"not (?:correct|right))\b",
    re.IGNORECASE,
)
_CHOSEN = re.compile(
    r"((?:[*$]{0,4}\(?\b[A-K]\b\)?[*$]{0,4}(?:, (?:and |or )?| and | or )?){1,6})"
    r" (?:is|are)(?: indeed| therefore| clearly| thus)?"
    r" (?:(?:the )?(?:only |one )?(?:correct|right|best)|the answer)\b"
)

_ALTERNATIVES_TEXT = "or and also alternatively maybe perhaps possibly another other either otherwise"
_ALTERNATIVES = frozenset(_ALTERNATIVES_TEXT.split())
_CONNECTING_TEXT = "the option choice statement is are it be could may value"
_CONNECTING = frozenset(_CONNECTING_TEXT.split())
_REPLACING_TEXT = (
    "so thus hence therefore then give gives giving yield yields means makes becomes but wait no not actually rather "
    "instead answer total sum final finally result because since after which implies follows output prints wrong "
    "mistake corrected correction sorry"
)
_REPLACING = frozenset(_REPLACING_TEXT.split())
_LEADS_ON = re.compile(r"[\s$]*(?:=|\\(?:right|Right|long)|\\implies|→|⇒)")
_NEW_SENTENCE = re.compile(r"[.!?](?:\s|$)|\n\s*\n")
_TEXT = re.compile(r"\\text\{([^{}]*)\}")

_KEYS = ("finalanswer", "answer", "correctanswer", "result", "solution", "output", "value")
"""Keys of a JSON object that holds the answer, without regard to case, spaces and underscores."""
_ESCAPES = re.compile(r"\\\\|\\(?=[A-Za-z]{2})")


class Marked(NamedTuple):
    """An answer with the place of everything that marks it."""

    start: int
    end: int
    answer: str


def committed(text: str, marked: Sequence[Marked]) -> str | None:
    """The last answer, and before it those that it does not replace; equal ones once."""
    together: list[Marked] = list(marked[-1:])
    for earlier, later in reversed(list(pairwise(marked[-MAX_TOGETHER:]))):
        if earlier.end > later.start or not _given_together(text, earlier, later):
            break
        together.insert(0, earlier)
    answers: list[str] = []
    for one in together:
        answers = [other for other in answers if not _are_same(other, one.answer)] + [one.answer]
    return ", ".join(answers) if answers else None


def _are_same(one: str, other: str) -> bool:
    """Whether each is the answer where the other is right: `50` is not `50%`."""
    if one == other or max(len(one), len(other)) > MAX_ALONE:
        return one == other
    return any(equal(a, b) and equal(b, a) for a in readings(one) for b in readings(other))


def _given_together(text: str, earlier: Marked, later: Marked) -> bool:
    between = text[earlier.end : later.start]
    if len(between) > MAX_BETWEEN or _LEADS_ON.match(between):
        return False
    words = re.findall(r"[a-z']{2,}", _COMMAND.sub(" ", _TEXT.sub(r" \1 ", between)).lower())
    if _ALTERNATIVES.intersection((*words[:3], *words[-4:])) and not _REPLACING.intersection(words):
        return True
    if _CONNECTING.issuperset(words) or _is_announced_twice(text, earlier, words):
        return True
    return not _REPLACING.intersection(words) and not _NEW_SENTENCE.search(between)


def _is_announced_twice(text: str, earlier: Marked, words: Sequence[str]) -> bool:
    """`The answer is \\boxed{3}. The answer is \\boxed{-3}.`"""
    before = text[max(0, earlier.start - 40) : earlier.start].lower()
    return "answer" in before and "answer" in words and {*_CONNECTING, "answer", "final"}.issuperset(words)


def only_solution(text: str) -> str | None:
    """Inside the solution tags, when both occur once and in order; not blank."""
    if text.count(SOLUTION_START) != 1 or text.count(SOLUTION_END) != 1:
        return None
    solution, closing, _ = text.partition(SOLUTION_START)[2].partition(SOLUTION_END)
    return solution if closing and solution.strip() else None


def last_solution(text: str) -> str | None:
    """Inside the last pair of solution tags with no tag between them."""
    return committed(text, _tagged(text, "SOLUTION"))


def last_answer_tag(text: str) -> str | None:
    """Inside the last pair of `<answer>` tags; not blank."""
    return committed(text, [one for one in _tagged(text, "answer") if one.answer])


def tagged_answer(text: str) -> str | None:
    """Inside the solution or answer tags, as it is written there; "" if they hold several different answers, which are
    guesses."""
    answers = {one.answer for one in (*_tagged(text, "SOLUTION"), *_tagged(text, "answer")) if one.answer}
    return (answers.pop() if len(answers) == 1 else "") if answers else None


def _tagged(text: str, tag: str) -> list[Marked]:
    return [Marked(found.start(), found.end(), found[1].strip()) for found in _TAGS[tag].finditer(text)]


def last_fence(text: str) -> str | None:
    """Inside a block of fenced code that ends the text, or the JSON object that ends it; not blank."""
    for written in (text, text[max(0, text.rfind("{")) :]):
        if _value_in_json(written) is not None:
            return written
    start = text.rfind("```", 0, max(text.rfind("```"), 0))
    if start < 0 or not text.rstrip().endswith("```"):
        return None
    blocks = [
        Marked(found.start(), found.end(), found[1].strip())
        for found in _FENCE.finditer(text, max(0, start - _MAX_FENCE))
        if found[1].strip()
    ]
    if not blocks or blocks[-1].end != len(text):
        return None
    lines = next((place for place, one in enumerate(reversed(blocks)) if "\n" in one.answer), len(blocks))
    return committed(text, blocks[-max(1, lines) :])


def in_words(text: str) -> str | None:
    """What follows `answer is`, `Answer:`, `the correct option is` up to the end of the sentence, or is said to be
    correct; not blank."""
    stated = sorted((*_stated(text), *_chosen(text)))
    stated = [one for one, after in pairwise([*stated, None]) if after is None or one.end <= after.start]
    return committed(text, [one for one in stated if not _SAYS_NOTHING.match(one.answer)] or stated)


def _stated(text: str) -> Iterator[Marked]:
    for found in deque(_STATED.finditer(text), maxlen=2 * MAX_TOGETHER):
        end = _STATEMENT_ENDS.search(text, found.end(), found.end() + MAX_STATED)
        last = end.start() if end else min(len(text), found.end() + MAX_STATED)
        answer = text[found.end() : last].strip(" *")
        while lead := _LEADS.match(answer):
            answer = answer[lead.end() :]
        if answer:
            yield Marked(found.start(), last, answer)


def _chosen(text: str) -> Iterator[Marked]:
    for found in deque(_CHOSEN.finditer(text), maxlen=2 * MAX_TOGETHER):
        yield Marked(found.start(1), found.end(), found[1].strip(" ,*$"))


def alone(text: str) -> str | None:
    """The whole text, when it is one short line of mathematics or a few words without any number."""
    text = text.strip().removesuffix(EOS_TOKEN).strip()
    if not text or len(text) > MAX_ALONE or "\n" in text:
        return None
    without_commands = _COMMAND.sub(" ", text)
    if _MATHEMATICAL.search(text) and not _WORD.search(without_commands):
        return text
    return text if not re.search(r"[0-9]", text) and len(text.split()) <= 5 else None


def last_boxed(text: str) -> str | None:
    r"""Inside the last `\boxed{…}` whose braces balance (`\{` and `\}` are not braces), or the word after `\boxed `."""
    return committed(text, _boxes(text))


def _boxes(text: str) -> list[Marked]:
    """Boxes that contain no other box, in order."""
    open_braces: list[tuple[int, int] | None] = []  # start of box and content; None for a plain brace
    boxes: list[Marked] = []
    for token in _BRACES.finditer(text):
        if token["bare"]:
            boxes.append(Marked(token.start(), token.end(), token["bare"].rstrip(".,;:")))
        elif token[0].startswith((r"\boxed", r"\fbox")):
            open_braces.append((token.start(), token.end()))
        elif token[0] == "{":
            open_braces.append(None)
        elif token[0] == "}" and open_braces:
            box = open_braces.pop()
            if box is not None and not (boxes and boxes[-1].start > box[0]):
                boxes.append(Marked(box[0], token.end(), text[box[1] : token.start()]))
    return boxes


def after_hashes(text: str) -> str | None:
    """The rest of the line after the last `####` (GSM8K's form); not blank, nor a heading."""
    lines = [Marked(found.start(), found.end(), found[1].strip()) for found in _HASHES.finditer(text)]
    end = len(text.rstrip())
    return committed(text, [one for one in lines if one.end >= end or not _HEADING.match(one.answer)])


FINDERS = {
    "solution": last_solution,
    "answer tags": last_answer_tag,
    "box": last_boxed,
    "hashes": after_hashes,
    "fence": last_fence,
    "words": in_words,
    "alone": alone,
    "number": around_last_number,
}
"""Mark of a form → the function that finds the answer."""


def final_answer(text: str) -> str | None:
    r"""The answer a text commits to, by the first of the forms whose mark it has."""
    _, thought, said = text.rpartition("</think>")
    text = said if thought and said.strip() else text
    finders = (FINDERS[mark] for mark in dict.fromkeys(form.mark for form in FORMS))
    found = next((found for find in finders if (found := find(text)) is not None), None)
    return None if found is None else _inside(found)


def _inside(found: str) -> str:
    """The answer in what was marked, which may be a JSON object or state it in words."""
    value = _value_in_json(found)
    found = found if value is None else value
    said = _TEXT.sub(r"\1", found)
    return (in_words(said) if _STATED.search(said) else None) or found


def _value_in_json(text: str) -> str | None:
    """The answer in a JSON object; None if it is none, or names no answer."""
    text = text.strip()
    if not (text.startswith("{") and text.endswith("}") and len(text) <= _MAX_JSON and '"' in text):
        return None
    for written in (_ESCAPES.sub(r"\\\\", text), text):  # models forget to double the backslash
        with suppress(ValueError, RecursionError):
            pairs = json.loads(written, object_pairs_hook=_pairs, parse_int=str, parse_float=str)
            return _answer_among(pairs)
    return None


def _pairs(pairs: list[tuple[str, Any]]) -> tuple[tuple[str, Any], ...]:
    return tuple((re.sub(r"[\s_-]", "", key).lower(), value) for key, value in pairs)


def _answer_among(pairs: tuple[tuple[str, Any], ...]) -> str | None:
    """Several answers under one key are a list."""
    for key in _KEYS:
        values = [value for name, value in pairs if name == key]
        if values:
            return ", ".join(map(_as_text, values[0] if len(values) == 1 and isinstance(values[0], list) else values))
    return None


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
