"""A configuration file and overrides → `RunConfig`, or every problem there is with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from pydantic import ValidationError

from grpo_dist.config import explain, problems, yaml_source
from grpo_dist.config.local_paths import with_absolute_paths
from grpo_dist.config.model import LoraSection
from grpo_dist.config.overrides import apply
from grpo_dist.config.problems import Place, Problem, Unreadable, shown
from grpo_dist.config.run import RunConfig
from grpo_dist.config.site import SiteSection, site_file, with_site
from grpo_dist.config.suggestions import ONLY_ADAPTERS
from grpo_dist.config.yaml_source import Source
from grpo_dist.errors import ConfigError

NO_ADAPTER = ("none", "null", "no", "off", "false", "full")
LARGEST_FILE = 256 * 1024


def load_config(path: str | Path, overrides: Sequence[str] = (), site: SiteSection | None = None) -> RunConfig:
    """The configuration in a YAML file, with `a.b=v` overrides; relative paths in it become absolute.

    Of a site's settings those count which neither the file nor an override states.

    Raises:
        ConfigError: one line for each problem: `path:line: setting: what is wrong; what to type`.
    """
    source = apply(read_source(Path(path)), overrides)
    if site:
        source.data = with_site(source.data, site)
    source.problems.extend(without_adapter(source))
    config = None
    try:
        config = RunConfig.model_validate(source.data)
    except ValidationError as invalid:
        source.problems.extend(explain.problems(invalid, source))
    if config is None or source.problems:
        raise problems.error(source.problems)
    return with_absolute_paths(config)


def without_adapter(source: Source) -> Iterator[Problem]:
    """`lora: null`, false or none, which asks for full fine-tuning; `lora:` with nothing means the defaults."""
    if not isinstance(source.data, dict) or "lora" not in source.data:
        return
    stated, place = source.data["lora"], source.nearest(("lora",))[1]
    if (stated is None and place.text) or stated is False or (isinstance(stated, str) and stated.lower() in NO_ADAPTER):
        default = f"leave it out for rank {LoraSection().r}, or state another: --set lora.r=64"
        asked = f"{place.text or shown(stated)} asks for full fine-tuning, and {ONLY_ADAPTERS}"
        yield Problem(place, ("lora",), f"{asked}; {default}")


def load_site() -> SiteSection | None:
    """The site settings, None where there is no such file.

    Raises:
        ConfigError: as `load_config`; or the file that GRPO_DIST_SITE names is not there.
    """
    path, named = site_file()
    if not (named or path.is_file()):
        return None
    source = read_source(path, needs="the settings of this site, e.g. partition: gpu")
    site = None
    try:
        site = SiteSection.model_validate(source.data)
    except ValidationError as invalid:
        source.problems.extend(explain.problems(invalid, source, SiteSection))
    if site is None or source.problems:
        raise problems.error(source.problems)
    return site


def read_source(path: Path, needs: str = "at least the sections model: and data:") -> Source:
    """What a file states, unchecked but for its being YAML with sections in it.

    Raises:
        ConfigError: the file cannot be read, or is not that.
    """
    text = _text(path)

    def place(line: int, column: int, scalar: str | None) -> Place:
        return Place(f"{path}:{line}", (0, line, column), None, scalar)

    try:
        source = yaml_source.read(text, place)
    except Unreadable as unreadable:
        raise problems.error([unreadable.problem]) from unreadable
    if source.data is None and not source.problems:
        raise ConfigError(f"{path}: the file is empty; it needs {needs}")
    if not isinstance(source.data, dict):
        source.problems.append(Problem(source.places[()], (), _no_sections(source.data)))
        raise problems.error(source.problems)
    return source


def _no_sections(data: object) -> str:
    return f"{problems.shown(data)} where sections belong; write model:, data: and so on, each with a colon and a space"


def _text(path: Path) -> str:
    content = _content(path)
    if len(content) > LARGEST_FILE:
        raise ConfigError(f"{path}: larger than {LARGEST_FILE // 1024} KiB; is this a configuration?")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as wrong:
        line = content.count(b"\n", 0, wrong.start) + 1
        byte = content[wrong.start]
        what = f"not UTF-8 text (byte {byte:#04x} at offset {wrong.start}); save the file as UTF-8"
        raise ConfigError(problems.visible(f"{path}:{line}: {what}")) from wrong


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        what = f"there is no such file{_instead(path)}"
    except IsADirectoryError:
        what = f"a directory, not a file{_instead(path)}"
    except OSError as wrong:
        what = f"the file cannot be read: {(wrong.strerror or str(wrong)).lower()}"
    except ValueError:
        what = "no file has such a name"
    raise ConfigError(problems.visible(f"{path}: {what}"))


def _instead(path: Path) -> str:
    """The nearest configuration there is, or all of them when there are few."""
    places = [path] if path.is_dir() else [path.parent, Path("configs")]
    there = {str(file) for place in places if place.is_dir() for file in place.glob("*.yaml")}
    by_stem = {Path(name).stem: name for name in sorted(there)}
    near = get_close_matches(path.stem, by_stem, n=1)
    if near:
        return f"; did you mean {by_stem[near[0]]}?"
    return f"; there is {', '.join(sorted(by_stem.values())[:8])}" if by_stem else "; write the path of a YAML file"
