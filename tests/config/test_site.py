"""Settings of a site: where they are looked for, what they may be, and what wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpo_dist.config import RunConfig, load_config, load_site
from grpo_dist.config.cluster import ClusterSection, SiteSection
from grpo_dist.errors import ConfigError

MODEL_AND_DATA = "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("GRPO_DIST_SITE", raising=False)


def write(path: str, text: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


def loaded(config: str = "", *overrides: str) -> RunConfig:
    write("config.yaml", MODEL_AND_DATA + config)
    return load_config("config.yaml", overrides, load_site())


def test_the_nearest_file_counts(monkeypatch):
    assert load_site() is None
    write(".config/grpo-dist/site.yaml", "partition: home")
    assert load_site().partition == "home"
    write("xdg/grpo-dist/site.yaml", "partition: xdg")
    monkeypatch.setenv("XDG_CONFIG_HOME", "xdg")
    assert load_site().partition == "xdg"
    write("named.yaml", "partition: named")
    monkeypatch.setenv("GRPO_DIST_SITE", "named.yaml")
    assert load_site().partition == "named"
    monkeypatch.setenv("GRPO_DIST_SITE", "nonesuch.yaml")
    with pytest.raises(ConfigError, match=re.escape("nonesuch.yaml: there is no such file; there is named.yaml")):
        load_site()


def test_every_setting_reaches_the_configuration():
    stated = {
        "partition": "gpu long",
        "account": "us",
        "qos": "high",
        "constraint": "a100",
        "time": "1:00:00",
        "sbatch": ["--mem=0"],
        "modules": ["gcc", "cuda/12.4"],
        "activate": ["conda activate 'my env'"],
        "scratch": "/local/$USER",
        "network_interface": "ib0",
        "container": {"runtime": "apptainer", "image": "grpo.sif", "mounts": ["/data:/data:ro"]},
    }
    assert set(stated) == set(SiteSection.model_fields)
    write(".config/grpo-dist/site.yaml", str(stated))
    plain = loaded().cluster.model_dump(mode="json")
    setup = ["module load gcc cuda/12.4", "conda activate 'my env'"]
    rest = {name: value for name, value in stated.items() if name not in ("modules", "activate")}
    assert {**plain, **rest, "setup": setup} == plain
    assert plain == {**ClusterSection().model_dump(mode="json"), **rest, "setup": setup}


def test_the_configuration_wins_over_the_site():
    write(".config/grpo-dist/site.yaml", "partition: theirs\naccount: theirs\nqos: theirs\nactivate: [theirs]")
    cluster = loaded("cluster: {partition: mine, qos: null, setup: [mine]}", "cluster.account=mine").cluster
    assert (cluster.partition, cluster.account, cluster.qos, cluster.setup) == ("mine", "mine", None, ("mine",))


@pytest.mark.parametrize("config", ["cluster:", "cluster: {}", "cluster: {nodes: 2}"])
def test_an_empty_section_states_nothing(config):
    write(".config/grpo-dist/site.yaml", "partition: theirs\ntime: null")
    assert loaded(config).cluster.partition == "theirs"
    assert loaded(config).cluster.time == "24:00:00"


def test_a_run_keeps_what_it_was_submitted_with():
    from grpo_dist.config import dump_config

    write(".config/grpo-dist/site.yaml", "partition: before")
    write("run.yaml", dump_config(loaded()))
    write(".config/grpo-dist/site.yaml", "partition: after\naccount: after")
    assert load_config("run.yaml", (), load_site()) == load_config("run.yaml")


def test_other_sections_and_broken_ones_are_refused_as_ever():
    write(".config/grpo-dist/site.yaml", "partition: theirs")
    with pytest.raises(ConfigError, match="cluster: must be a group of settings"):
        loaded("cluster: 3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partiton: gpu", "site.yaml:1: partiton: unknown setting; did you mean partition?"),
        ("\ntime: soon", "site.yaml:2: time: 'soon' is not of the form it takes; write for example `time: 24:00:00`"),
        ("modules: cuda", "site.yaml:1: modules: must be a list such as [a, b], not 'cuda'; for a list of one"),
        ("container: {runtime: pyxis}", "container.image: missing; add `image: /images/grpo.sqsh`"),
        ("container: {runtime: docker, image: x}", "container.runtime: must be pyxis or apptainer, not 'docker'"),
        ("container: {runtime: pyxis, image: x, mounts: [data]}", "container.mounts.0: 'data' is no mount"),
        (
            "container: {runtime: pyxis, image: x, mount: []}",
            "container.mount: unknown setting; did you mean container.mounts?",
        ),
        ("prompts: 3", "site.yaml:1: prompts: unknown setting; this file has partition, account"),
        ("", "site.yaml: the file is empty; it needs the settings of this site, e.g. partition: gpu"),
    ],
)
def test_slips_are_told_with_file_line_and_path(text, told):
    write(".config/grpo-dist/site.yaml", text)
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_site()
