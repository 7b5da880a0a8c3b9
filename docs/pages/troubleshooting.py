"""What the program knows about failures, from the tables it tells them by."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from types import ModuleType

from writing import code, table

from grpo_dist import errors
from grpo_dist.inference import supervisor
from grpo_dist.rewards.preflight import answers, checks, scorer
from grpo_dist.supervisor import failure
from grpo_dist.training.rewards import trial, worker
from grpo_dist.training.trainer import callbacks

INTRODUCTION = """# Troubleshooting

<!-- Written by `make docs` from the program's own tables; edit it there. -->

Every error says what is wrong and where, and after an arrow (→) what to type. `grpo-dist doctor CONFIG` looks at a
machine before anything fails, `grpo-dist logs RUN` shows what the processes of a run printed.

## Exit codes

| code | meaning | what to do |
| --- | --- | --- |
| 0 | it is done | |
| 1 | something failed while running | read the last lines; of a job they stand in `failure.json` too |
| 2 | what was configured is wrong, or cannot run together; nothing was started | type what follows the arrow |
| 75 | nothing is wrong with the run, it was saved | the same command with `--resume`; a job does it by itself |
| 128 + n | ended by signal n, e.g. 130 after Ctrl-C | the same command with `--resume` |

By kind of error:"""
ERROR_LINE = re.compile(r"(\w+) +exit \d+ +(.+)")
JOB_TEXT = """## A job fails

`failure.json`, and the last lines of the job's log, name the part that failed first and its likely cause, told from its
last lines. The first row that is found there counts."""
SERVER_TEXT = """## A rollout server ends

Told from the last lines of its log, `logs/attempt-N/` in the run directory. A server is started again
`rollout.max_restarts` times in a row; its work goes to the others meanwhile."""
TRAINING_TEXT = """## Training runs but learns nothing

Told once, when it has stood for {patience} logged steps in a row."""
PREFLIGHT_TEXT = """## The reward preflight finds something

An error stops a run unless `rewards.allow` names it; `…` stands for a function, a number or an example. Below a finding
stands what was compared: the problem, its right answer as written, another completion, and what each was paid."""
UNKNOWN = "…"
KNOWN_HEAD = ("words in the log", "likely cause", "what to do")


def page() -> str:
    """The whole page."""
    by_job = ((_words(pattern), cause, hint) for pattern, cause, hint in failure.CAUSES)
    by_server = ((_words(cause.pattern), cause.what, cause.hint) for cause in supervisor.CAUSES)
    signs = ((code(sign.metric), sign.text) for sign in callbacks.SIGNS)
    parts = [
        *(INTRODUCTION, table(("error", "exit code", "meaning"), _errors())),
        *(JOB_TEXT, table(KNOWN_HEAD, by_job)),
        *(SERVER_TEXT, table(KNOWN_HEAD, by_server)),
        *(TRAINING_TEXT.format(patience=callbacks.PATIENCE), table(("metric", "what it means, what to do"), signs)),
        *(PREFLIGHT_TEXT, table(("name", "what is wrong", "what to do"), _findings())),
    ]
    return "\n\n".join([*parts, ""])


def _errors() -> Iterator[tuple[str, str, str]]:
    """From the tree at the head of the module; the codes are the classes' own."""
    for name, meaning in ERROR_LINE.findall(inspect.cleandoc(errors.__doc__)):
        yield code(name), str(getattr(errors, name).exit_code), meaning


def _words(pattern: str) -> str:
    """The alternatives of a regular expression, one code span each, readable."""
    for written, read in ((r"\(\?m\)|\\b|\$|'\?", ""), (r"\[(\w)\w\]", r"\1"), (r"\.\*", " … "), (r"s\?|\?|\\", "")):
        pattern = re.sub(written, read, pattern)
    return ", ".join(code(" ".join(word.split())) for word in _alternatives(pattern))


def _alternatives(pattern: str) -> Iterator[str]:
    """Split at the bars outside parentheses."""
    depth, word = 0, ""
    for letter in pattern:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "|" and not depth:
            yield word
            word = ""
        else:
            word += letter
    yield word


def _findings() -> Iterator[tuple[str, str, str]]:
    """Name, what and hint as they stand in the source of what finds them."""
    for module in (worker, trial, checks, answers, scorer):
        for call in _calls(module):
            name, _, what, hint = (_text(argument, module) for argument in call.args)
            yield code(name), what, hint
    for name, case, advice in checks.CHEATS:
        yield code(name), f"{checks.WHAT[case]}: paid like gold", advice


def _calls(module: ModuleType) -> Iterator[ast.Call]:
    """Where a finding of a fixed name is made in words of its own."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.Call(func=ast.Name(id="Finding"), args=[name, _, what, _]):
                if UNKNOWN not in (_text(name, module), _text(what, module)):
                    yield node


def _text(node: ast.expr, module: ModuleType) -> str:
    """The text an expression comes to, with `…` for what is not known before it runs."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.Name(id=name) if isinstance(getattr(module, name, None), str):
            return getattr(module, name)
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, module) for part in parts)
        case ast.FormattedValue(value=inner):
            return _text(inner, module)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, module) + _text(right, module)
        case ast.IfExp(body=body):
            return _text(body, module)
        case ast.Call(args=[first, *_]):
            return _text(first, module)
    return UNKNOWN
