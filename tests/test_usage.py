"""Help is written from the YAML files: each setting with its default and what it does. None of it takes seconds."""

import itertools
import shlex
import subprocess
import sys

import pytest

from lightning_dice.cli import _quoted
from lightning_dice.config import config_folder
from lightning_dice.usage import COMMANDS, UNUSED, about, comments, composed, examples, summary, usage
from tests.test_config import composed as config_of

FILES = sorted(config_folder().rglob("*.yaml"))
SECONDS = {"torch", "pytorch_lightning", "torchio", "monai"}
HEAVY = {*SECONDS, "pandas", "matplotlib", "scipy"}


def combinations(command: str) -> list[list[str]]:
    """Overrides that take each file of each group at least once, and none."""
    _, groups = composed(command)
    names = [[f"{group.name}={file.stem}" for file in group.files] for group in groups]
    return [[], *([override for override in row if override] for row in itertools.zip_longest(*names))]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_setting_says_what_it_does(command):
    # All of the groups' files are among those of train.
    overrides = combinations(command) if command == "train" else [[]]
    assert [(one.name, given) for given in overrides for one in composed(command, given)[0] if not one.about] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_a_line_about_the_command_two_examples_that_work_and_nothing_of_hydras(command):
    text = usage(command)
    assert text.startswith(f"lightning-dice {command}: {summary(command)}\n")
    assert len(examples(command)) == 2
    for example in examples(command):
        assert f"\n  {example}\n" in text
        program, name, *given = shlex.split(example)
        assert (program, name) == ("lightning-dice", command)
        composed(command, [_quoted(one, ("run", "sweep")) for one in given])
    assert "ydra" not in text
    assert "???" not in text


def test_each_file_says_what_it_is():
    assert [file for file in FILES if not about(file)] == []


def test_help_has_the_defaults_of_what_is_chosen():
    lines = [
        line.split("  ")[0]
        for line in usage("train", ["experiment=demo", "optim=sgd", "callbacks=ema"]).replace("\n  ", "\n").splitlines()
    ]
    assert {
        "optim=sgd, or another of:",
        "phantoms=40",
        "data.patch_size=48",
        "optim.momentum=0.99",
        "prior=half",
        "callbacks.ema.decay=0.999",
    } <= set(lines)
    assert "optim.betas=[0.9,0.999]" not in lines
    prepare = usage("prepare")
    assert "data.test=0 " in prepare
    assert "data.patch_size" not in prepare
    assert "sweep=grid" not in usage("report")  # which are train's


def test_what_a_command_takes_no_notice_of_is_a_setting_that_it_has():
    for command, names in UNUSED.items():
        given = ["data=phantom"] if command in ("evaluate", "export") else []
        config = config_of(command, *given)
        for name in names:
            node = config
            for part in name.rstrip(".").split("."):
                assert part in node, name
                node = node[part]


def test_a_comment_is_that_of_its_own_line():
    text = """# header
a: 1  # one # two
b: "#no"
c:  # three
  d: {e: "#x", f: 2}   # four
  g: [1,
    2]  # not at its beginning
h: {}  # of a file that is chosen
"""
    assert set(comments(text)) == {
        ("a", "one # two", False),
        ("c", "three", True),
        ("c.d", "four", True),
        ("c.d.e", "four", False),
        ("c.d.f", "four", False),
        ("h", "of a file that is chosen", False),
    }


@pytest.mark.parametrize(
    ("arguments", "status", "heavy"),
    [
        (["train", "--help"], 0, HEAVY),
        (["train", "optim.lrr=1"], 1, HEAVY),
        (["predict", "mirror=3", "run=x", "input=x", "output=x"], 1, HEAVY),
        (["prepare", "data=nnunet", "data.root=nowhere"], 1, SECONDS),
    ],
)
def test_help_and_refusals_import_nothing_that_takes_seconds(arguments, status, heavy, tmp_path):
    command, *given = arguments
    asked = [sys.executable, "-X", "importtime", "-m", f"lightning_dice.{command}", *given]
    result = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == status
    imported = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert "hydra" in imported
    assert not imported & heavy
