"""The tests of a row, in the layouts in which data sets of programming problems have them.

| columns | data sets |
|---|---|
| `test`, `entry_point` | HumanEval: a function `check(candidate)` |
| `test_list`, `test_setup_code` or `test_imports` | MBPP: one assertion each |
| `input_output` | APPS, TACO: inputs, outputs and perhaps `fn_name`, as JSON |
| `public_test_cases`, `private_test_cases`, `metadata` | LiveCodeBench: the private ones packed |
| `verification_info` | PrimeIntellect's verifiable-coding-problems and SYNTHETIC-1 |
| `tests` | DeepCoder, and data of your own: assertions, or a list of `{input, output}` |
"""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from grpo_dist.errors import RewardError

COLUMNS = ("tests", "test_list", "test", "input_output", "verification_info", "public_test_cases", "private_test_cases")
"""Each alone tells that a row has tests."""
WITH = ("test_setup_code", "test_imports", "entry_point", "metadata")
"""Read with them."""
INPUTS, OUTPUTS = ("input", "stdin", "inputs"), ("output", "stdout", "expected_output", "outputs")
NAMES = ("fn_name", "func_name", "function_name")
PACKING = (zlib.error, pickle.UnpicklingError)
LAYOUTS = 'a list of assertions, or a list like [{"input": "1 2", "output": "3"}]'


@dataclass(frozen=True)
class Scripts:
    """A program that reads and prints: (input, what it should print) each."""

    cases: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.cases)


@dataclass(frozen=True)
class Functions:
    """A program whose functions are called."""

    setup: str
    """Run before the tests."""
    tests: tuple[Any, ...]
    """{"code": assertions} or {"call": name, "arguments": […], "returns": [every right value]}; as JSON has them."""
    imports: bool = field(default=False, compare=False)
    """Whether the problem gives a program the usual imports, as the sites do that call functions, and HumanEval."""

    def __len__(self) -> int:
        return len(self.tests)


Tests = Scripts | Functions


def read_tests(row: Mapping[str, Any]) -> Tests:
    """The tests in the columns of one row. RewardError when there are none, or in no layout that is known."""
    given = {name: value for name, value in row.items() if value not in (None, "", [], {})}
    try:
        return _read_tests(json.dumps(given, sort_keys=True))
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, EOFError, RecursionError, *PACKING) as error:
        raise RewardError(
            f"the tests of a problem cannot be read: {type(error).__name__}: {error}",
            hint=f"a column `tests` may hold {LAYOUTS}",
        ) from error


@lru_cache(maxsize=4096)
def _read_tests(row: str) -> Tests:
    found = _read(json.loads(row))
    if not len(found):
        raise RewardError("a problem has no tests", hint="drop such rows from the data set")
    return found


def _read(row: Mapping[str, Any]) -> Tests:
    if "verification_info" in row:
        info = _opened(row["verification_info"])
        if info.get("language", "python") not in ("python", "python3"):
            raise RewardError(f"a problem wants a program in {info['language']}: only Python is run")
        return _cases(info["test_cases"], None)
    if "test_list" in row:
        imports = row.get("test_imports", [])
        setup = [*([imports] if isinstance(imports, str) else imports), row.get("test_setup_code", "")]
        return Functions("\n".join(setup), tuple({"code": one} for one in row["test_list"]))
    if "test" in row and "entry_point" in row:
        return Functions(row["test"], ({"code": f"check({row['entry_point']})"},), imports=True)
    if "input_output" in row:
        return _any(_opened(row["input_output"]), None)
    if "public_test_cases" in row or "private_test_cases" in row:
        cases = [*_opened(row.get("public_test_cases", [])), *_unpacked(row.get("private_test_cases", []))]
        return _cases(cases, _name(_opened(row.get("metadata", {}))))
    if "tests" in row or "test" in row:
        return _any(_opened(row.get("tests", row.get("test"))), _name(_opened(row.get("metadata", {}))))
    raise RewardError(
        "a problem has no tests: reward 'code' knows the columns " + ", ".join(COLUMNS),
        hint=f"--set 'data.columns={{tests: COLUMN}}', where the column holds {LAYOUTS}",
    )


def _opened(value: Any) -> Any:
    """What a JSON text holds; any other text and value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        return json.loads(value)
    return value


class _TextOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, and text needs nothing")


def _unpacked(value: Any) -> Any:
    """LiveCodeBench's private tests: JSON, or JSON text pickled, compressed and in base64."""
    if isinstance(value, str) and value.lstrip()[:1] not in ("{", "["):
        value = _TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(value)))).load()
    return _opened(value)


def _any(value: Any, name: str | None) -> Tests:
    if isinstance(value, str):
        return Functions("", ({"code": value},))
    if isinstance(value, Mapping):
        name = _name(value) or name
        inputs, outputs = _first(value, INPUTS), _first(value, OUTPUTS)
        return _cases([{"input": i, "output": o} for i, o in zip(inputs, outputs, strict=True)], name, wrapped=True)
    if value and all(isinstance(one, str) for one in value):
        return Functions("", tuple({"code": one} for one in value))
    return _cases(value, name)


def _cases(cases: list[Mapping[str, Any]], name: str | None, *, wrapped: bool = False) -> Tests:
    if any(_name(one) or name for one in cases) and not all(_kind(one) in ("stdin", "stdin_stdout") for one in cases):
        return Functions("", tuple(_call(one, _name(one) or name, wrapped) for one in cases), imports=True)
    return Scripts(tuple((_lines(_first(one, INPUTS)), _lines(_first(one, OUTPUTS))) for one in cases))


def _kind(case: Mapping[str, Any]) -> str:
    return str(case.get("type") or case.get("testtype") or "")


def _call(case: Mapping[str, Any], name: str | None, wrapped: bool) -> dict[str, Any]:
    given, output = _first(case, INPUTS), _first(case, OUTPUTS)
    if _kind(case) == "function_call":  # PrimeIntellect: all arguments and the value as lists, perhaps as JSON
        given, output, wrapped = _opened(given), _opened(output), True
    return {"call": name, "arguments": _arguments(given), "returns": _right(output, wrapped)}


def _name(value: Any) -> str | None:
    return next((value[name] for name in NAMES if value.get(name)), None) if isinstance(value, Mapping) else None


def _first(value: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if name in value:
            return value[name]
    raise KeyError(f"a test has no {' or '.join(names)}; it has {', '.join(value)}")


def _arguments(given: Any) -> list[Any]:
    """A list as it is; of a text, one JSON value per line."""
    return [json.loads(line) for line in given.splitlines() if line.strip()] if isinstance(given, str) else list(given)


def _right(output: Any, wrapped: bool) -> list[Any]:
    """Every right value: APPS puts the one value of a call into a list, or not."""
    if isinstance(output, str) and not wrapped:
        try:
            return [json.loads(output)]
        except ValueError:
            return [output]
    return [output, output[0]] if isinstance(output, list) and len(output) == 1 else [output]


def _lines(value: Any) -> str:
    """Text; of a list, its lines."""
    return value if isinstance(value, str) else "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def same_output(printed: str, expected: str) -> bool:
    """Line by line, without regard to spaces around words and empty lines at the end; decimals to one part in 10⁶."""
    lines = (text.rstrip().splitlines() for text in (printed, expected))
    return all(_same_line(one, other) for one, other in zip_longest(*lines, fillvalue=""))


def _same_line(one: str, other: str) -> bool:
    words = list(zip_longest(one.split(), other.split()))
    return all(a == b or (a is not None and b is not None and _same_decimal(a, b)) for a, b in words)


def _same_decimal(one: str, other: str) -> bool:
    numbers = list(_decimals(one, other))
    return len(numbers) == 2 and math.isclose(*numbers, rel_tol=1e-6, abs_tol=1e-6)


def _decimals(*words: str) -> Iterator[float]:
    """Only if the expected one is written with a point or exponent: whole numbers are compared digit by digit."""
    if not any(mark in words[1].lower() for mark in (".", "e")):
        return
    for word in words:
        try:
            number = float(word)
        except ValueError:
            return
        if math.isfinite(number) and "_" not in word:
            yield number
