"""Adapters pushed to a rollout server: their files on its own disk.

Whether an adapter is whole, fits the served model and holds numbers, told before the engine is given it.

vLLM 0.31 takes what it can get: tensors of other shapes, half of an adapter's tensors, NaN; and computes with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from grpo_dist.plan.specs import Architecture
from grpo_dist.plan.specs.architecture import ALL_LINEAR
from grpo_dist.run.models import ADAPTER_CONFIG, ADAPTER_WEIGHTS

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


class AdapterRefused(Exception):
    """A request that is not done; `status` is HTTP's."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AdapterStore:
    """Directories of adapters, each under its name."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, name: str) -> Path:
        """Where the adapter lies or would.

        Raises:
            Refused: that is no name.
        """
        if not NAME.fullmatch(name):
            raise AdapterRefused(
                400, f"{name!r} is no name of an adapter: letters, digits, '.', '_' and '-', no dot in front"
            )
        return self.root / name

    async def write(self, name: str, file: str, digest: str, chunks: AsyncIterator[bytes]) -> Path:
        """Put one file of an adapter in place, whole or not at all; return the adapter's directory.

        Args:
            digest: SHA-256 of the file, hexadecimal.

        Raises:
            Refused: the name is not one of the two, the bytes have another digest, or the disk does not take them.
        """
        directory = self.directory(name)
        if file not in FILES:
            raise AdapterRefused(400, f"{file!r} is no file of an adapter; those are {' and '.join(FILES)}")
        draft = directory / f".{file}.{uuid.uuid4().hex[:8]}"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            found = await _save(draft, chunks)
            if found != digest:
                raise AdapterRefused(422, f"{file}: its SHA-256 is {found}, X-Sha256 says {digest or 'nothing'}")
            os.replace(draft, directory / file)
        except OSError as error:
            status = 507 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 500
            raise AdapterRefused(status, f"{directory}: {file} cannot be written ({error.strerror})") from error
        finally:
            draft.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                directory.rmdir()  # only when nothing is in it
        return directory

    async def remove(self, name: str) -> None:
        """Remove what was pushed of an adapter, if anything was."""
        await asyncio.to_thread(shutil.rmtree, self.directory(name), ignore_errors=True)


async def _save(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write the chunks to the disk itself; return their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "xb") as handle:
        async for chunk in chunks:
            digest.update(chunk)
            handle.write(chunk)
        handle.flush()
        await asyncio.to_thread(os.fsync, handle.fileno())
    return digest.hexdigest()


PREFIX = "base_model.model."
"""What PEFT puts before the name of a module."""
TENSOR = re.compile(r"(.+)\.lora_[AB]\.weight")
DTYPES = ("F16", "BF16", "F32")
HEADER_BYTES = 2**20
"""Room for names and shapes: 504 tensors take 70 KB."""
LARGEST_UNKNOWN = 32 * 2**30
"""Where the model's shape is not known. Qwen3-32B's at rank 512 in float32 takes 16 GiB."""


class AdapterConfig(BaseModel):
    """What is read of `adapter_config.json` (PEFT's names)."""

    model_config = ConfigDict(strict=True)

    r: PositiveInt
    lora_alpha: FiniteFloat
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | re.Pattern[str]
    """Whole names or ends of them; a single string is an expression for whole ones."""

    def targeted(self, modules: Iterable[str]) -> set[str]:
        """Those of the modules that are adapted, by PEFT's rule (`tuners_utils.check_target_module_exists`).

        Raises:
            Refused: a target is none of them.
        """
        if isinstance(self.target_modules, re.Pattern):
            by_target = {self.target_modules.pattern: set(filter(self.target_modules.fullmatch, modules))}
        else:
            by_target = {
                one: {name for name in modules if f".{name}".endswith(f".{one}")} for one in self.target_modules
            }
        for target, found in by_target.items():
            if not found:
                raise AdapterRefused(400, f"{ADAPTER_CONFIG}: no module is there for {target!r} of target_modules")
        return set().union(*by_target.values())


class Shape(NamedTuple):
    """Of a tensor; None is any size."""

    rows: int | None
    columns: int | None

    def fits(self, found: list[int]) -> bool:
        return len(found) == 2 and all(
            wanted in (None, size) and size for wanted, size in zip(self, found, strict=True)
        )


def largest_adapter(architecture: Architecture | None, max_lora_rank: int) -> int:
    """Bytes of the largest file of an adapter: float32 on every linear layer, and its header."""
    if architecture is None:
        return LARGEST_UNKNOWN
    return 4 * architecture.lora_parameters(max_lora_rank, ALL_LINEAR) + HEADER_BYTES


def check_adapter(directory: Path, architecture: Architecture | None) -> None:
    """Read an adapter once: names and shapes in the header of its file, then the numbers.

    132 MB in bfloat16 take 0.03 s of one core.

    Args:
        architecture: the served model's. Where it is not known, A and B of a module need only have the adapter's rank.

    Raises:
        Refused: in one sentence, with the first tensor or field that is wrong.
    """
    try:
        config = AdapterConfig.model_validate_json((directory / ADAPTER_CONFIG).read_bytes())
        with safe_open(directory / ADAPTER_WEIGHTS, framework="pt") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
            _check_shapes(config, shapes, architecture)
            for name in shapes:
                _check_numbers(name, tensors)
    except ValidationError as error:
        first = error.errors()[0]
        field = first["loc"][0] if first["loc"] else "its text"
        raise AdapterRefused(400, f"{ADAPTER_CONFIG}: {field}: {first['msg']}") from error
    except (OSError, SafetensorError) as error:
        raise AdapterRefused(400, f"{ADAPTER_WEIGHTS} cannot be read: {error}") from error


def _check_shapes(config: AdapterConfig, shapes: Mapping[str, list[int]], architecture: Architecture | None) -> None:
    expected = dict(_expected(config, shapes, architecture))
    for name, shape in expected.items():
        if name not in shapes:
            raise AdapterRefused(400, f"{name} is missing, and {ADAPTER_CONFIG} targets its module")
        if not shape.fits(shapes[name]):
            raise AdapterRefused(400, f"{name} has the shape {_words(shapes[name])} and must have {_words(shape)}")
    for name in sorted(shapes.keys() - expected.keys()):
        raise AdapterRefused(400, f"{name} is of no module that {ADAPTER_CONFIG} targets in this model")


def _expected(
    config: AdapterConfig, shapes: Mapping[str, list[int]], architecture: Architecture | None
) -> Iterator[tuple[str, Shape]]:
    """A is (r, in_features), B is (out_features, r)."""
    if architecture is None:
        found = {match[1].removeprefix(PREFIX) for name in shapes if (match := TENSOR.fullmatch(name))}
        modules = dict.fromkeys(sorted(found), (None, None))
    else:
        modules = {name: (linear.in_features, linear.out_features) for name, linear in architecture.modules()}
    targeted = config.targeted(modules)
    for module, (inputs, outputs) in modules.items():
        if module in targeted:
            yield f"{PREFIX}{module}.lora_A.weight", Shape(config.r, inputs)
            yield f"{PREFIX}{module}.lora_B.weight", Shape(outputs, config.r)


def _check_numbers(name: str, tensors: Any) -> None:
    if (dtype := tensors.get_slice(name).get_dtype()) not in DTYPES:
        raise AdapterRefused(400, f"{name} is of the type {dtype} and must be of {', '.join(DTYPES)}")
    # Both ends are NaN when any element is; a tenth of what looking at each by itself takes.
    if not all(end.isfinite() for end in tensors.get_tensor(name).aminmax()):
        raise AdapterRefused(400, f"{name} holds NaN or infinity")


def _words(shape: list[int] | Shape) -> str:
    return " × ".join("any" if size is None else str(size) for size in shape)
