"""The reward `code`: does the program in a completion pass the tests of its row?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal


def code(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    tests: Sequence[Any] | None = None,
    test_list: Sequence[Any] | None = None,
    test_setup_code: Sequence[Any] | None = None,
    test_imports: Sequence[Any] | None = None,
    test: Sequence[Any] | None = None,
    entry_point: Sequence[Any] | None = None,
    input_output: Sequence[Any] | None = None,
    public_test_cases: Sequence[Any] | None = None,
    private_test_cases: Sequence[Any] | None = None,
    metadata: Sequence[Any] | None = None,
    verification_info: Sequence[Any] | None = None,
    *,
    pay: Literal["all", "share"] = "all",
    seconds: int = 4,
    memory_mb: int = 1024,
    sandbox: Literal["required", "none"] = "required",
    **columns: Any,
) -> list[float | None]:
    """1.0 when the program in the completion passes all tests of its row, else 0.0; with `pay: share` the share.

    Args:
        seconds: processor time of the program for one input, or for all its assertions.
        memory_mb: address space of the program, in MiB.
        sandbox: `none` runs programs with the rights of this user where they cannot be confined.

    The other arguments are columns, in one of the layouts that `row_tests` knows. RewardError without tests, or without
    a sandbox.
    """
    from grpo_dist.rewards.programs.judge import paid  # a plan reads the signature only

    known = {
        "tests": tests,
        "test_list": test_list,
        "test_setup_code": test_setup_code,
        "test_imports": test_imports,
        "test": test,
        "entry_point": entry_point,
        "input_output": input_output,
        "public_test_cases": public_test_cases,
        "private_test_cases": private_test_cases,
        "metadata": metadata,
        "verification_info": verification_info,
    }
    given = {name: values for name, values in known.items() if values is not None}
    return paid(completions, given, pay=pay, seconds=seconds, memory_mb=memory_mb, sandbox=sandbox)
