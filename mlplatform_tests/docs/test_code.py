"""Every block of code in the documentation holds: configuration validates, Python fits the code, commands exist."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel, ValidationError

from mlplatform.api import propose
from mlplatform.cli.app import app
from mlplatform.config import (
    AlertsConfig,
    DatasetConfig,
    DriftConfig,
    ExperimentConfig,
    ServingConfig,
    load_experiment,
)
from mlplatform.settings import Settings
from mlplatform_tests.docs.pages import PAGES, ROOT, Block, blocks, inline_code, shell_blocks

# What a fragment of YAML may be a part of.
GROUPS: tuple[type[BaseModel], ...] = (ExperimentConfig, DatasetConfig, DriftConfig, ServingConfig, AlertsConfig)
# What a run configuration of Dagster begins with.
RUN_KEYS = re.compile(r"(?:#.*\n)?(?:resources|ops|loggers):")
PLACEHOLDER = re.compile(r"<[\w -]+>|\.\.\.")


def named(found: list[Block]) -> Any:
    """Return the parameters of a test of each block."""
    assert found
    return pytest.mark.parametrize("block", found, ids=lambda block: block.name)


# YAML


@pytest.fixture(scope="module")
def defs() -> Any:
    """The code location, as it is installed."""
    from mlplatform.definitions import defs

    return defs


@named([block for block in blocks("yaml") if block.text.startswith("# @package _global_")])
def test_experiments_in_one_file_are_accepted(block: Block, tmp_path: Path) -> None:
    name = yaml.safe_load(block.text)["name"]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / f"{name}.yaml").write_text(block.text)
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path)})
    assert load_experiment(name, settings=settings).name == name


@named([block for block in blocks("yaml") if "@package" not in block.text and not RUN_KEYS.match(block.text)])
def test_fragments_of_yaml_are_what_the_configuration_takes(block: Block) -> None:
    mistakes = {group.__name__: _mistakes(group, yaml.safe_load(block.text)) for group in GROUPS}
    assert [] in mistakes.values(), f"fits no part of the configuration: {mistakes}"


@named([block for block in blocks("yaml") if RUN_KEYS.match(block.text)])
def test_run_configurations_are_what_a_job_takes(block: Block, defs: Any) -> None:
    from dagster import DagsterInvalidConfigError, validate_run_config

    # Names of the reader's own stand for the packaged ones.
    document = yaml.safe_load(block.text.replace("plant", "fleet"))
    complaints = []
    for job in (name for name in job_names(defs) if "fleet" in name):
        try:
            validate_run_config(defs.resolve_job_def(job), document)
            return
        except DagsterInvalidConfigError as error:
            complaints.append(f"{job}: {error}")
    pytest.fail("\n".join(complaints))


def job_names(defs: Any) -> list[str]:
    """Return the names of all jobs of the code location."""
    return sorted(job.name for job in defs.resolve_all_job_defs() if not job.name.startswith("__"))


def _mistakes(group: type[BaseModel], fragment: dict[str, Any]) -> list[str]:
    """Return what a group has against a fragment of it; what is left out of a fragment is no mistake."""
    try:
        group.model_validate(fragment)
    except ValidationError as error:
        return [f"{each['loc']}: {each['msg']}" for each in error.errors() if each["type"] != "missing"]
    return []


# Python


@named(blocks("python"))
def test_python_calls_what_there_is(block: Block) -> None:
    """Imports are made, and calls of what they bring are held against its signatures; nothing is run."""
    tree = ast.parse(block.text)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            exec(compile(ast.Module([node], []), block.name, "exec"), names)  # noqa: S102 - a line of our own pages
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            assert hasattr(names[node.value.id], node.attr), f"{node.value.id}.{node.attr}"
        called = _resolved(node.func, names) if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Call) and callable(called) and called.__module__.startswith("mlplatform."):
            given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
            inspect.signature(called).bind(*node.args, **given)


def _resolved(expression: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(expression, ast.Name):
        return names.get(expression.id)
    if isinstance(expression, ast.Attribute):
        return getattr(_resolved(expression.value, names), expression.attr, None)
    return None


# Shell


@named(shell_blocks())
def test_shell_blocks_are_shell(block: Block) -> None:
    checked = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    # Words in angle brackets are for the reader to fill in.
    assert checked.returncode == 0 or PLACEHOLDER.search(block.text), checked.stderr


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Yield every command of the documentation, as place and words, without the variables before it."""
    for block in shell_blocks():
        for line in block.text.replace("\\\n", " ").splitlines():
            yield from ((block.name, words) for words in _words(line))
    for page in PAGES:
        for text in inline_code(page):
            if re.match(r"(mlplatform|make|python -m|python benchmarks/|dagster job|pip install) ?\S", text):
                yield from ((str(page.relative_to(ROOT)), words) for words in _words(text))


def _words(line: str) -> Iterator[list[str]]:
    line = re.sub(r"\bVERSION\b", "1", PLACEHOLDER.sub("x", line))
    for part in re.split(r"&&|;(?![^'\"]*['\"])|\|", line):
        words = shlex.split(part, comments=True) if part.count('"') % 2 == 0 and part.count("'") % 2 == 0 else []
        while words and re.match(r"[A-Z_]+=", words[0]):
            words = words[1:]
        if words:
            yield words


COMMANDS = list(_commands())


def of_program(*names: str) -> Any:
    """Return the parameters of a test of each command of a program, alike ones once."""
    found = {tuple(words): place for place, words in COMMANDS if words[0] in names}
    assert found
    return pytest.mark.parametrize("words", sorted(found), ids=lambda words: f"{found[words]} {' '.join(words)}")


@of_program("mlplatform")
def test_commands_of_mlplatform_parse(words: tuple[str, ...]) -> None:
    group: Any = typer.main.get_command(app)
    # `[NAME...]` in a table means: as many as you like.
    arguments = [word for word in words[1:] if not word.startswith("[")]
    if not arguments or arguments[0].startswith("-") or arguments[0].isupper():
        return
    command = group.commands[arguments[0]]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    given = {word.split("=")[0] for word in arguments[1:] if word.startswith("--")}
    assert given <= known | {"--help"}
    if len(arguments) > 1:
        command.make_context(arguments[0], list(arguments[1:]), resilient_parsing="--help" in given)


@of_program("make")
def test_targets_of_make_exist(words: tuple[str, ...]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    variables = set(re.findall(r"^(?:export )?([A-Z_]+) \??:?=", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for word in words[1:] if "=" not in word} <= targets
    assert {word.split("=")[0] for word in words[1:] if "=" in word} <= variables | {"EXPERIMENT"}


@of_program("python", "python3")
def test_python_programs_exist_and_have_these_options(words: tuple[str, ...]) -> None:
    if words[1] == "-m":
        spec = importlib.util.find_spec(words[2])
        assert spec is not None, words[2]
        assert spec.origin is not None
        place = Path(spec.origin)
        if place.name == "__init__.py":
            place = place.with_name("__main__.py")
        text, given = place.read_text(), words[3:]
    elif words[1].startswith("benchmarks/"):
        text, given = (ROOT / words[1]).read_text(), words[2:]
    else:
        return
    for option in (word.split("=")[0] for word in given if word.startswith("--")):
        assert f'"{option}"' in text or f'{option}"' in text or "contracts" in words[2], option


@of_program("dagster")
def test_jobs_of_dagster_exist(words: tuple[str, ...], defs: Any) -> None:
    jobs = job_names(defs)
    if "-j" in words and (job := words[words.index("-j") + 1]) != "x":
        # Of an experiment of the reader's own, the act has to exist.
        act = job.split("_")[0]
        assert job in jobs or (job not in "".join(jobs) and any(each.startswith(f"{act}_") for each in jobs))


@of_program("pip")
def test_extras_exist(words: tuple[str, ...]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for asked in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(asked.split(",")) <= set(extras)


# What can be set from outside


def test_every_environment_variable_is_in_the_list_and_the_list_has_no_others() -> None:
    code = [path.read_text() for room in ("mlplatform", "serving") for path in (ROOT / room).rglob("*.py")]
    read = {name for text in code for name in re.findall(r'"(MLPLATFORM_[A-Z_]+)"', text)}
    listed = set(re.findall(r"MLPLATFORM_[A-Z_]+", (ROOT / "docs" / "environment.md").read_text()))
    assert {name for name in read if not name.startswith("MLPLATFORM_TESTING")} == listed


# The quick start


def test_the_file_of_the_quick_start_is_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "quickstart.md"
    program, shown = (
        next(block.text for block in blocks(language) if block.page == page) for language in ("python", "yaml")
    )
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", program], check=True)
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path / "home"), "MLPLATFORM_CONF_DIR": str(tmp_path)})
    proposal = propose("sales.csv", settings=settings)
    assert proposal.mistakes == ()
    assert proposal.yaml.replace(str(tmp_path), "/home/you") == shown
    for note in proposal.notes:
        assert f"  {note}\n" in page.read_text()
