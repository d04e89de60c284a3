"""The commands under one name, and their completion in bash."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_dice.completion import candidates
from lightning_dice.usage import COMMANDS

ROOT = Path(__file__).parents[1]


def said(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lightning_dice", *arguments]
    asked = {"cwd": folder, "env": os.environ | environment, "capture_output": True, "text": True, "timeout": 60}
    return subprocess.run(command, **asked)


def test_without_a_command_they_are_listed_with_a_line_each(tmp_path):
    result = said(folder=tmp_path)
    assert result.returncode == 0
    listed = re.findall(r"^  (\w+) +(\w.*)$", result.stdout, re.MULTILINE)
    assert [name for name, _ in listed] == list(COMMANDS)
    modules = [(ROOT / "lightning_dice" / f"{name}.py").read_text() for name in COMMANDS]
    assert all('\nif __name__ == "__main__":\n    command(' in module for module in modules)


def test_an_unknown_command_is_refused_in_one_line(tmp_path):
    result = said("tran", "loss=simple", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr == f"error: tran: no such command; expected one of {', '.join(COMMANDS)}\n"


def test_a_command_is_what_its_module_is(tmp_path):
    given = ["seed=1", "loss=simple", "--cfg", "job"]
    under_its_name = said("train", *given, folder=tmp_path)
    asked = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 60}
    module = subprocess.run([sys.executable, "-m", "lightning_dice.train", *given], **asked)
    assert "weighting: simple" in module.stdout
    assert (under_its_name.returncode, under_its_name.stdout) == (0, module.stdout)
    result = said("train", "optim.lrr=1", folder=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: optim.lrr: no such setting; expected one of ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lightning-dice ", sorted(f"{name} " for name in COMMANDS)),
        ("lightning-dice pre", ["predict ", "prepare "]),
        ("lightning-dice train loss=s", ["loss=simple ", "loss=square ", "loss=sum "]),
        ("lightning-dice train op", ["optim.", "optim="]),
        ("lightning-dice train optim.b", ["optim.betas="]),
        ("lightning-dice train data.prep", ["data.preparation."]),
        ("lightning-dice train data.preparation.s", ["data.preparation.smooth=", "data.preparation.spacing_mm="]),
        ("lightning-dice train loss=focal loss.g", ["loss.gamma="]),
        ("lightning-dice train loss=smple loss.e", ["loss.epsilon="]),
        ("lightning-dice train +sweep=", ["+sweep=grid ", "+sweep=rates ", "+sweep=study "]),
        ("lightning-dice predict mirror=", ["mirror=false ", "mirror=true "]),
        ("lightning-dice predict loss", []),
        ("lightning-dice report sweep=", []),  # a folder, though there are files in conf/sweep
        ("lightning-dice predict input=", []),  # a file, which bash completes
        ("lightning-dice tran loss", []),
    ],
)
def test_what_can_follow(line, expected):
    assert candidates(line) == expected


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_up_to_the_cursor_and_after_an_equal_sign(tmp_path):
    """By its protocol: the function gets COMP_LINE and COMP_POINT, and leaves what it found in COMPREPLY."""
    script = said("train", "--shell-completion", "install=bash", folder=tmp_path).stdout
    program = tmp_path / "lightning-dice"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lightning_dice "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(
        script
        + """
complete -p lightning-dice
COMP_LINE='lightning-dice train loss=si seed=1' COMP_POINT=28
_lightning_dice lightning-dice; printf '<%s>' "${COMPREPLY[@]}"
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
_lightning_dice lightning-dice; printf '<%s>' "${COMPREPLY[@]}"
"""
    )
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    asked = {"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "check": True, "timeout": 60}
    result = subprocess.run(["bash", "--norc", str(tmp_path / "script")], **asked)
    registered, found = result.stdout.splitlines()
    assert registered.endswith("-F _lightning_dice lightning-dice")
    assert found == "<simple ><loss=simple >"


def test_another_shell_is_refused_in_one_line(tmp_path):
    result = said("--shell-completion", "install=csh", folder=tmp_path)
    assert (result.returncode, result.stderr) == (1, "error: --shell-completion install=csh: expected install=bash\n")
