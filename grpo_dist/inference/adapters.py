"""Adapters sent to a rollout server: their files on its disk, and the check before the engine loads one.

The check finds adapters that are incomplete, do not fit the served model or hold NaN. vLLM 0.31 accepts tensors of
other shapes, half of an adapter's tensors and NaN, and computes with them.
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
from grpo_dist.run.checkpoints import ADAPTER_CONFIG, ADAPTER_WEIGHTS

NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


class AdapterRefused(Exception):
    """A request that is refused; `status` is the HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AdapterStore:
    """Adapter directories below `root`, each under the name of its adapter."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, name: str) -> Path:
        """Directory of the adapter, whether it exists or not.

        Raises:
            AdapterRefused: the name is not valid.
        """
        if not NAME.fullmatch(name):
            raise AdapterRefused(
                400, f"{name!r} is no name of an adapter: letters, digits, '.', '_' and '-', no dot in front"
            )
        return self.root / name

    async def write(self, name: str, file: str, digest: str, chunks: AsyncIterator[bytes]) -> Path:
        """Write one file of an adapter atomically; return the adapter's directory.

        Args:
            digest: SHA-256 of the file, hexadecimal.

        Raises:
            AdapterRefused: the file is not one of FILES, the digest does not match, or it cannot be written.
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
                directory.rmdir()  # fails unless it is empty
        return directory

    async def remove(self, name: str) -> None:
        """Remove the files of an adapter, if there are any."""
        await asyncio.to_thread(shutil.rmtree, self.directory(name), ignore_errors=True)


async def _save(path: Path, chunks: AsyncIterator[bytes]) -> str:
    """Write the chunks and sync them to the disk; return their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "xb") as handle:
        async for chunk in chunks:
            digest.update(chunk)
            handle.write(chunk)
        handle.flush()
        await asyncio.to_thread(os.fsync, handle.fileno())
    return digest.hexdigest()


PREFIX = "base_model.model."
"""PEFT's prefix of module names."""
TENSOR = re.compile(r"(.+)\.lora_[AB]\.weight")
DTYPES = ("F16", "BF16", "F32")
HEADER_BYTES = 2**20
"""Allowed for names and shapes: 504 tensors take 70 KB."""
LARGEST_UNKNOWN = 32 * 2**30
"""Limit where the model's architecture is not known. Qwen3-32B at rank 512 in float32 takes 16 GiB."""


class AdapterConfig(BaseModel):
    """The fields of `adapter_config.json` that the check needs, under PEFT's names."""

    model_config = ConfigDict(strict=True)

    r: PositiveInt
    lora_alpha: FiniteFloat
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | re.Pattern[str]
    """Module names or suffixes of them; a single string is a regular expression for whole names."""

    def targeted(self, modules: Iterable[str]) -> set[str]:
        """The modules that are adapted, by PEFT's rule (`tuners_utils.check_target_module_exists`).

        Raises:
            AdapterRefused: a target matches no module.
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
    """Expected shape of a tensor; None matches any size."""

    rows: int | None
    columns: int | None

    def matches(self, found: list[int]) -> bool:
        return len(found) == 2 and all(
            expected in (None, size) and size for expected, size in zip(self, found, strict=True)
        )


def largest_adapter(architecture: Architecture | None, max_lora_rank: int) -> int:
    """Bytes of the largest possible adapter file: float32 on every linear layer, plus the header."""
    if architecture is None:
        return LARGEST_UNKNOWN
    return 4 * architecture.lora_parameters(max_lora_rank, ALL_LINEAR) + HEADER_BYTES


def check_adapter(directory: Path, architecture: Architecture | None) -> None:
    """Check an adapter: names and shapes from the header of its file, then the values.

    132 MB in bfloat16 take 0.03 s of one core.

    Args:
        architecture: of the served model. If None, A and B of a module only have to have the adapter's rank.

    Raises:
        AdapterRefused: the message names the first tensor or field that is wrong.
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
        if not shape.matches(shapes[name]):
            raise AdapterRefused(
                400, f"{name} has the shape {_format_shape(shapes[name])} and must have {_format_shape(shape)}"
            )
    for name in sorted(shapes.keys() - expected.keys()):
        raise AdapterRefused(400, f"{name} is of no module that {ADAPTER_CONFIG} targets in this model")


def _expected(
    config: AdapterConfig, shapes: Mapping[str, list[int]], architecture: Architecture | None
) -> Iterator[tuple[str, Shape]]:
    """Name and shape of every tensor: A is (r, in_features), B is (out_features, r)."""
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
    # aminmax returns NaN if any element is NaN; it takes a tenth of the time of isfinite on every element.
    if not all(end.isfinite() for end in tensors.get_tensor(name).aminmax()):
        raise AdapterRefused(400, f"{name} holds NaN or infinity")


def _format_shape(shape: list[int] | Shape) -> str:
    return " × ".join("any" if size is None else str(size) for size in shape)
