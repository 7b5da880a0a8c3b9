"""What a reward file may import from beside itself, and that nobody else sees it."""

from __future__ import annotations

import random
import sys

import pytest

from grpo_dist.config.sections import RewardFunction
from grpo_dist.errors import RewardError
from grpo_dist.rewards.load import load_rewards

F = "def f(completions, **_):\n    "
FILES = {
    "one/mine.py": "import helper\ndef f(completions, **_):\n    return [helper.score(c) for c in completions]\n",
    "one/helper.py": "import inner.deep as deep\ndef score(text):\n    return deep.LEVEL + float(len(text))\n",
    "one/inner/__init__.py": "",
    "one/inner/deep.py": "from . import level\nLEVEL = level.LEVEL\n",
    "one/inner/level.py": "LEVEL = 100.0\n",
    "two/mine.py": F + "from helper import score\n    return [score(c) for c in completions]\n",
    "two/helper.py": "from random import Random\ndef score(text):\n    return -float(len(text))\n",
    "two/random.py": "raise RuntimeError('not the random anybody meant')\n",
    "two/reward 1.5.py": "from helper import *\ndef f(completions, **_):\n    return [score(c) for c in completions]\n",
    "package/__init__.py": "raise RuntimeError('imported for nothing')\n",
    "package/alone.py": "def f(completions, **_):\n    return [7.0 for c in completions]\n",
    "whole/__init__.py": "",
    "whole/common.py": "WORTH = 3.0\n",
    "whole/rewards/__init__.py": "",
    "whole/rewards/mine.py": (
        "from ..common import WORTH\nfrom whole import common\n"
        "from .other import WORTH as other\nimport other as same\n"
        "def f(completions, **_):\n"
        "    assert common.WORTH == WORTH and other is same.WORTH\n    return [WORTH for c in completions]\n"
    ),
    "whole/rewards/other.py": "WORTH = [1]\n",
    "by_name/mine.py": (
        "import importlib\ndef f(completions, **_):\n"
        "    return [importlib.import_module('only_by_name').WORTH for c in completions]\n"
    ),
    "by_name/only_by_name.py": "WORTH = 5.0\n",
    "circle/mine.py": "import back\nWORTH = 2.0\n" + F + "return [back.worth() for c in completions]\n",
    "circle/back.py": "import mine\ndef worth():\n    return mine.WORTH\n",
    "missing/mine.py": "import gone.deeper\ndef f(completions, **_): ...\n",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def paid(path, text="abc"):
    [reward] = load_rewards([RewardFunction(name=f"{path}:f")])
    return reward(prompts=["?"], completions=[text])[0]


@pytest.mark.parametrize(
    ("name", "worth"),
    [
        ("one/mine.py", 103.0),
        ("two/mine.py", -3.0),
        ("two/reward 1.5.py", -3.0),
        ("package/alone.py", 7.0),
        ("whole/rewards/mine.py", 3.0),
        ("by_name/mine.py", 5.0),
        ("circle/mine.py", 2.0),
    ],
)
def test_a_reward_file_imports_what_lies_beside_it(files, name, worth):
    assert paid(files / name) == worth


def test_modules_of_one_name_in_two_folders_are_two(files):
    assert [paid(files / "one/mine.py"), paid(files / "two/mine.py"), paid(files / "one/mine.py")] == [103, -3, 103]


def test_nobody_else_gets_what_lies_beside_a_reward(files):
    paid(files / "two/mine.py")
    assert sys.modules["random"] is random
    assert "helper" not in sys.modules
    assert str(files / "two") not in sys.path[: len(sys.path) // 2]


def test_what_is_missing_beside_a_reward_is_named(files):
    with pytest.raises(RewardError, match="No module named 'gone'") as raised:
        paid(files / "missing/mine.py")
    assert raised.value.hint.startswith(f"put gone.py into {files / 'missing'}")
