"""An installed wheel finds its own configuration, from any folder."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from lightning_dice import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel would install."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_package_with_its_configuration_and_nothing_else(installed):
    assert {path.name for path in installed.iterdir()} == {"lightning_dice", f"lightning_dice-{__version__}.dist-info"}
    for source, place in (("lightning_dice", "lightning_dice"), ("conf", "lightning_dice/conf")):
        for path in (ROOT / source).rglob("*"):
            if path.suffix in (".py", ".yaml", ".html", ".css", ".js", ".typed"):
                assert (installed / place / path.relative_to(ROOT / source)).read_bytes() == path.read_bytes()
    about = installed / f"lightning_dice-{__version__}.dist-info"
    assert (about / "licenses" / "LICENSE").is_file()
    assert "lightning-dice = lightning_dice.__main__:main\n" in (about / "entry_points.txt").read_text()


def test_a_command_runs_from_any_folder(installed, tmp_path):
    command = [sys.executable, "-m", "lightning_dice.train", "--cfg", "job", "loss=square"]
    environment = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    asked = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    where = subprocess.run([sys.executable, "-c", "import lightning_dice; print(lightning_dice.__file__)"], **asked)
    assert Path(where.stdout.strip()) == installed / "lightning_dice" / "__init__.py"
    result = subprocess.run(command, **asked)
    assert result.returncode == 0, result.stderr
    config = result.stdout
    assert yaml.safe_load(config)["loss"]["weighting"] == "square"
    assert not list(tmp_path.iterdir())


def test_constraints_pin_what_the_project_asks_for():
    wanted = requires("lightning-dice")  # the installed metadata: tomllib came only with Python 3.11
    pins = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, version = line.partition(";")[0].strip().split("==")
            pins[name.lower().replace("_", "-")] = version
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name]), text
    assert pins["torch"] == "2.13.0"


def test_the_top_level_is_the_designs():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    top = {name.partition("/")[0] for name in listed if name and not name.startswith(".")}
    assert top == {
        "pyproject.toml", "README.md", "conf", "lightning_dice", "tests", "Makefile",
        "LICENSE", "CITATION.cff", "constraints.txt",
    }  # fmt: skip


def test_the_version_stands_in_one_place():
    files = (
        "pyproject.toml",
        "CITATION.cff",
        "README.md",
        "Makefile",
        *map(str, (ROOT / "lightning_dice").rglob("*.py")),
    )
    holding = [file for file in files if f'"{__version__}"' in (ROOT / file).read_text(encoding="utf-8")]
    assert holding == [str(ROOT / "lightning_dice" / "__init__.py")]
    assert f"## {__version__}" in (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_workflow_runs_what_ci_runs_on_the_versions_that_the_package_names():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": "bash .ci/run"}
    project = (ROOT / "pyproject.toml").read_text()
    assert [f'Python :: {version}"' in project for version in job["strategy"]["matrix"]["python"]] == [True] * 4
