"""Problems that a generator of reasoning-gym makes: which seeds are trained on and which are held out, and the rows.

Problem `i` of a generator with seed s follows from s + i. Held-out problems begin 2^30 above the training ones and are
fewer than that, so no seed is in both; where two seeds make the same problem, `prepare` trains on neither.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from grpo_dist.config.generators import COMPOSITE, HELDOUT, INSTALL, PREFIX, is_installed
from grpo_dist.data.text import set_option
from grpo_dist.errors import DataError
from grpo_dist.rewards.task_worker import typed

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

SIZE, SEED = 500, 0
APART = 2**30
"""First held-out seed less the first of training."""
MOST_HELD_OUT = 10_000

Row = dict[str, Any]


def sizes(settings: Mapping[str, Any]) -> dict[str, int]:
    """Split → its number of problems."""
    return {"train": settings.get("size", SIZE), HELDOUT: MOST_HELD_OUT}


def generated_rows(name_or_path: str, settings: Mapping[str, Any], pieces: Iterable[tuple[str, range]]) -> list[Row]:
    """Rows with `prompt`, `answer` (None where the generator names none), `task` (the generator) and `entry`: what
    grading needs, as a Python literal, because JSON has no tuples.

    Args:
        pieces: (split, numbers of its problems).

    Raises:
        DataError: reasoning-gym is missing, or refuses the settings.
    """
    if not is_installed():
        raise DataError(f"data.name_or_path: {name_or_path} needs reasoning-gym, which is not installed", hint=INSTALL)
    name = name_or_path.removeprefix(PREFIX)
    rows: list[Row] = []
    for split, numbers in pieces:
        dataset = _dataset(name, {**settings, **_seeded(settings, split)})
        rows += [_row(name, settings, _item(name, dataset, number)) for number in numbers]
    return rows


def _seeded(settings: Mapping[str, Any], split: str) -> dict[str, int]:
    size, seed = sizes(settings)[split], settings.get("seed") or SEED
    return {"size": size, "seed": seed + APART * (split == HELDOUT)}


def _dataset(name: str, settings: Mapping[str, Any]) -> ProceduralDataset:
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS, create_dataset

    settings = dict(settings)
    try:
        for one in settings.pop("datasets", ()) if name == COMPOSITE else ():
            own = typed(DATASETS[one["name"]][1], one.get("config") or {})
            settings.setdefault("datasets", []).append(DatasetSpec(one["name"], one.get("weight", 1), own))
        return create_dataset(name, **typed(DATASETS[name][1], settings))
    except (AssertionError, TypeError, ValueError) as error:
        raise DataError(
            f"data.generator: reasoning-gym refuses the settings of {name}: {error or type(error).__name__}",
            hint="for its defaults: " + set_option("data.generator", {}),
        ) from error


def _item(name: str, dataset: ProceduralDataset, number: int) -> Row:
    try:
        return dataset[number]
    except Exception as error:
        raise DataError(
            f"data.generator: {name} cannot make problem {number + 1} of {len(dataset)} with these settings: "
            f"{type(error).__name__}: {error}",
            hint="widen its ranges",
        ) from error


def _row(name: str, settings: Mapping[str, Any], item: Row) -> Row:
    task = item["metadata"].get("source_dataset", name) if name == COMPOSITE else name
    entry = {
        "task": task,
        "config": config_of(name, settings, task),
        "question": item["question"],
        "answer": item["answer"],
        "metadata": item["metadata"],
    }
    return {"prompt": item["question"], "answer": item["answer"], "task": task, "entry": literal(entry)}


def config_of(name: str, settings: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The settings of the generator that made a problem, as they stand in the configuration."""
    if name != COMPOSITE:
        return {key: value for key, value in settings.items() if key not in ("size", "seed")}
    return dict(next(one for one in settings["datasets"] if one["name"] == task).get("config") or {})


def literal(value: Any) -> str:
    """A value as a Python literal; as JSON has it where a part of it has none."""
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, TypeError):
        pass
    return repr(json.loads(json.dumps(value, default=str)))
