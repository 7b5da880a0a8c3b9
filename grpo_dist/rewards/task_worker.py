"""The process that grades answers to reasoning-gym's problems: `python task_worker.py DESCRIPTOR`.

One JSON request per line on stdin, one JSON reply per line on the open file DESCRIPTOR:

    → {"entries": [ENTRY, …], "answers": [[0, "42"], [0, null], …], "timeout_s": 2.0}    ← {"scores": [1.0, 0.0, …]}

An ENTRY is a Python literal: {task, config, question, answer, metadata}; one that cannot be used is replied to with
{"error": reason}. The first line it writes is {"ready": true},
or {"missing": reason} when reasoning-gym cannot be imported. It is started as a file and imports nothing of this
package.

What a model wrote reaches the generators' own `score_answer`, and some of these evaluate it as Python (`eval`, SymPy's
`parse_expr`). Here both accept arithmetic and literals only. Answers are graded in a forked child that can write no
file and has limits on memory and on processor time; where one answer ends the child, that answer is worth nothing and
the next child goes on behind it.
"""

from __future__ import annotations

import ast
import ctypes
import dataclasses
import gc
import json
import math
import os
import resource
import signal
import sys
import types
import typing
from collections.abc import Mapping
from datetime import date, time
from enum import Enum
from typing import Any, NoReturn

MEMORY_BYTES = 4 << 30
PATIENT, HURRIED_S = 10, 0.2
"""After this many answers that took too long, the others of a request have less time, in seconds."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    with os.fdopen(int(sys.argv[1]), "w", buffering=1) as replies:
        os.environ.clear()
        try:
            _load()
        except ImportError as error:
            print(json.dumps({"missing": str(error)}), file=replies)
            return
        gc.freeze()  # the children share what is loaded
        print(json.dumps({"ready": True}), file=replies)
        for line in sys.stdin:
            print(json.dumps(_reply(json.loads(line))), file=replies)


def _load() -> None:
    """Import reasoning-gym, and take the power of evaluating Python from it."""
    import reasoning_gym  # noqa: F401  registers the generators
    from sympy.parsing import sympy_parser

    evaluate = sympy_parser.eval_expr

    def guarded(code: str, local_dict: dict[str, Any], global_dict: dict[str, Any]) -> Any:
        _check_symbolic(ast.parse(code.strip(), mode="eval"), local_dict, global_dict)
        return evaluate(code, local_dict, global_dict)

    sympy_parser.eval_expr = guarded
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and name.split(".")[0] == "reasoning_gym":
            vars(module)["eval"] = _arithmetic


class NotArithmetic(ValueError):
    """The text is more than arithmetic and literals."""


_ARITHMETIC = (
    *(ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.Load),
    *(ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop),
)


def _arithmetic(text: str, *_: Any) -> Any:
    """`eval` for numbers, texts, lists and the operators between them."""
    tree = ast.parse(str(text).strip(), mode="eval")
    if not all(isinstance(node, _ARITHMETIC) for node in ast.walk(tree)):
        raise NotArithmetic
    return eval(compile(tree, "", "eval"), {"__builtins__": {}})


_SYMBOLIC = (*_ARITHMETIC, ast.Call, ast.Name, ast.keyword, ast.Compare, ast.cmpop)
_TEXT_TAKERS = ("Symbol", "Integer", "Float", "Rational", "Function")


def _check_symbolic(tree: ast.Expression, local_dict: dict[str, Any], global_dict: dict[str, Any]) -> None:
    """Raise NotArithmetic unless SymPy's code only builds an expression of numbers, symbols and functions of SymPy."""
    names = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    texts = {
        id(argument)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXT_TAKERS
        for argument in node.args
    }
    for node in ast.walk(tree):
        if not isinstance(node, _SYMBOLIC) or (isinstance(node, ast.Call) and not isinstance(node.func, ast.Name)):
            raise NotArithmetic
        if isinstance(node, ast.Name) and not _is_harmless(node.id, local_dict, global_dict, called=id(node) in names):
            raise NotArithmetic
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        if is_text and not (id(node) in texts and str(node.value).replace(".", "").replace("-", "").isalnum()):
            raise NotArithmetic


def _is_harmless(name: str, local_dict: dict[str, Any], global_dict: dict[str, Any], *, called: bool) -> bool:
    import sympy

    if name in local_dict:
        return isinstance(local_dict[name], sympy.Basic)
    there = global_dict.get(name)
    if isinstance(there, sympy.Basic):
        return True
    kinds = (sympy.Function, sympy.Number, sympy.Symbol, sympy.Max, sympy.Min, sympy.Pow, sympy.Add, sympy.Mul)
    is_function = isinstance(there, type) and (issubclass(there, kinds) or there is sympy.Function)
    return called and (is_function or there in (sympy.sqrt, sympy.cbrt, sympy.root))


Entry = tuple[Any, dict[str, Any]]
"""A data set of the generator, and the problem as it made it."""


def _reply(request: dict[str, Any]) -> dict[str, Any]:
    try:
        entries = [_entry(text) for text in request["entries"]]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"scores": _scores(entries, request["answers"], request["timeout_s"])}


def _scores(entries: list[Entry], answers: list[list[Any]], timeout_s: float) -> list[float]:
    """A score from 0 to 1 for each answer."""
    scores: list[float] = []
    late = 0
    while len(scores) < len(answers):
        scores += _by_child(entries, answers[len(scores) :], HURRIED_S if late >= PATIENT else timeout_s)
        if len(scores) < len(answers):  # the answer that ended the child
            scores.append(0.0)
            late += 1
    return scores


def _by_child(entries: list[Entry], answers: list[list[Any]], timeout_s: float) -> list[float]:
    """Scores of the first answers, up to one that ends the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _grade_all(entries, answers, writing, timeout_s)
    os.close(writing)
    with os.fdopen(reading, "rb") as written:
        lines = written.read().split(b"\n")[:-1]
    os.waitpid(child, 0)
    return [_bounded(line) for line in lines[: len(answers)]]


def _grade_all(entries: list[Entry], answers: list[list[Any]], scores: int, timeout_s: float) -> NoReturn:
    """In the child: a line for each answer. Does not return."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setpgid(0, 0)
        _set_limit(resource.RLIMIT_AS, MEMORY_BYTES)
        for what in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
            _set_limit(what, 0)
        # The kernel kills the process: a Python signal handler would wait for the end of a long C operation.
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        for place, answer in answers:
            signal.setitimer(signal.ITIMER_PROF, timeout_s)
            os.write(scores, b"%r\n" % _graded(*entries[place], answer))
    finally:
        os._exit(0)


_known: dict[str, Any] = {}
"""Data sets by generator and settings: some read files when they are made."""


def _entry(text: str) -> Entry:
    from reasoning_gym.factory import DATASETS

    entry = ast.literal_eval(text)
    key = f"{entry['task']} {entry['config']!r}"
    if key not in _known:
        kind, config = DATASETS[entry["task"]]
        _known[key] = kind(config=config(**typed(config, entry["config"]), seed=0))
    return _known[key], entry


def typed(config: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from YAML in the types of a generator's configuration: tuples, dates, times, words of an enumeration."""
    kinds = typing.get_type_hints(config)
    return {key: _typed(value, kinds.get(key)) for key, value in settings.items()}


def _typed(value: Any, kind: Any) -> Any:
    origin = typing.get_origin(kind) or kind
    if isinstance(value, list) and origin in (tuple, list):
        inner = next(iter(typing.get_args(kind)), None)
        return origin(_typed(one, inner) for one in value)
    if not isinstance(origin, type):
        return value
    if isinstance(value, str) and issubclass(origin, date | time):
        return origin.fromisoformat(value)
    if isinstance(value, str) and issubclass(origin, Enum):
        return origin(value)
    return origin(**value) if isinstance(value, dict) and dataclasses.is_dataclass(origin) else value


def _graded(dataset: Any, entry: dict[str, Any], answer: str | None) -> float:
    """The generator's own score; what it cannot read is worth nothing."""
    try:
        return float(dataset.score_answer(answer, entry))
    except Exception:
        return 0.0


def _bounded(line: bytes) -> float:
    try:
        score = float(line)
    except ValueError:
        return 0.0
    return min(1.0, max(0.0, score)) if math.isfinite(score) else 0.0


def _set_limit(what: int, limit: int) -> None:
    hard = resource.getrlimit(what)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
