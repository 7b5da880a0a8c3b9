"""Two-digit additions, and how the embedded model works them out."""

from __future__ import annotations

import random

TRAIN_PROBLEMS = 1000
HELDOUT_PROBLEMS = 256


def problems(seed: int, train: int, heldout: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Distinct training and held-out rows `{"prompt": "47+38=", "answer": "85"}`; every second one needs a carry.

    Sums stay below 100. Each addition occurs in one order only: `38+47=` is absent if `47+38=` occurs, so a held-out
    problem cannot be read off a training problem.

    Raises:
        ValueError: more problems are requested than the 1,280 that exist.
    """
    rng = random.Random(seed)
    pairs = [(a, b) for a in range(10, 50) for b in range(a, 100 - a)]
    rng.shuffle(pairs)
    rows = [_row(*rng.sample(pair, 2)) for pair in pairs]
    carried = [row for row in rows if carries(row["prompt"])]
    easy = [row for row in rows if not carries(row["prompt"])]
    rows = [row for both in zip(carried, easy, strict=False) for row in both]
    if train + heldout > len(rows):
        raise ValueError(f"{train} + {heldout} problems wanted, there are {len(rows)}")
    return rows[heldout : heldout + train], rows[:heldout]


def worked(prompt: str, *, carry: bool) -> str:
    """The completion of `prompt` after the prefilled opening tag, with the carry kept or forgotten.

    `47+38=` → `7+8=15 4+3=7+1=8<end_working_out><SOLUTION>85</SOLUTION>`; forgotten: `7+8=15 4+3=7…75…`.
    """
    a, b = (int(number) for number in prompt.removesuffix("=").split("+"))
    units, tens = a % 10 + b % 10, a // 10 + b // 10
    working = f"{a % 10}+{b % 10}={units} {a // 10}+{b // 10}={tens}"
    if carry and units > 9:
        tens += 1
        working += f"+1={tens}"
    return f"{working}<end_working_out><SOLUTION>{tens}{units % 10}</SOLUTION>"


def carries(prompt: str) -> bool:
    """Whether the units of `prompt` add up to more than nine."""
    a, b = prompt.removesuffix("=").split("+")
    return int(a[-1]) + int(b[-1]) > 9


def _row(a: int, b: int) -> dict[str, str]:
    return {"prompt": f"{a}+{b}=", "answer": str(a + b)}
