"""lightning-dice COMMAND, or python -m lightning_dice COMMAND: each command as `python -m lightning_dice.COMMAND`."""

import os
import runpy
import sys

from lightning_dice.completion import BASH, candidates
from lightning_dice.usage import COMMANDS, summary


def main() -> None:
    """Do what the command line says; without a command, list them."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if "--shell-completion" in sys.argv[1:]:
        print(_completion(sys.argv[-1]), end="")
    elif name in ("--help", "-h"):
        print(_listed())
    elif name not in COMMANDS:
        sys.exit(f"error: {name}: no such command; expected one of {', '.join(COMMANDS)}")
    else:
        sys.argv[1:] = arguments
        runpy.run_module(f"lightning_dice.{name}", run_name="__main__", alter_sys=True)


def _listed() -> str:
    return "\n".join([
        "lightning-dice COMMAND SETTING=VALUE …\n",
        *(f"  {name:9}  {summary(name)}" for name in COMMANDS),
        "\nWhat can be set: lightning-dice COMMAND --help",
        'Completion in bash: eval "$(lightning-dice --shell-completion install=bash)"',
    ])  # fmt: skip


def _completion(asked: str) -> str:
    if asked == "install=bash":
        return BASH
    if asked == "query=bash":
        line = os.environ.get("COMP_LINE", "")
        return "".join(f"{one}\n" for one in candidates(line[: int(os.environ.get("COMP_POINT", len(line)))]))
    sys.exit(f"error: --shell-completion {asked}: expected install=bash")


if __name__ == "__main__":
    main()
