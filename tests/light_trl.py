"""Imported before TRL's trainer: TRL would import all of vLLM, ten seconds, for which these tests have a stand-in."""

from __future__ import annotations

from trl import import_utils

import_utils.is_vllm_available = lambda **_: False
