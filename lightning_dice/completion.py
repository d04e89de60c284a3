"""What can follow on a command line, for the Tab key of bash: commands, settings, choices."""

from collections.abc import Iterator

from hydra.errors import HydraException

from lightning_dice.config import config_file, config_folder
from lightning_dice.usage import COMMANDS, composed

# Bash ends a word at "=", unless COMP_WORDBREAKS says otherwise, and replaces what follows.
BASH = """\
_lightning_dice() {
    local IFS=$'\\n' word=${COMP_LINE:0:COMP_POINT}
    COMPREPLY=($(COMP_LINE=$COMP_LINE COMP_POINT=$COMP_POINT "$1" --shell-completion query=bash 2>/dev/null))
    if [[ $COMP_WORDBREAKS == *=* && ${word##* } == *=* ]]; then COMPREPLY=("${COMPREPLY[@]#*=}"); fi
}
complete -o nospace -o default -F _lightning_dice lightning-dice
"""


def candidates(line: str) -> list[str]:
    """What the last word of a command line can become; a word that is then complete ends in a blank."""
    _, *words = line.split()
    word = words.pop() if words and not line.endswith(" ") else ""
    command, *given = words or [""]
    if not command:
        found: Iterator[str] = (f"{name} " for name in COMMANDS)
    elif command not in COMMANDS:
        return []
    elif "=" in word:
        found = _values(command, word.partition("=")[0], given)
    else:
        found = _names(command, given, word.rpartition(".")[0].count(".") + ("." in word))
    return sorted({one for one in found if one.startswith(word)})


def _names(command: str, given: list[str], depth: int) -> Iterator[str]:
    """Settings with `=`, and groups of settings below so many others with their dot."""
    try:
        settings, groups = composed(command, [one for one in given if _is_choice(one)])
    except HydraException:  # of what was typed before; the command will say so
        settings, groups = composed(command)
    yield from (f"{group.name}=" for group in groups)
    for setting in settings:
        parts = setting.name.split(".")
        whole = len(parts) <= depth + 1
        yield ".".join(parts[: depth + 1]) + ("=" if whole else ".")
    yield "--help "


def _values(command: str, name: str, given: list[str]) -> Iterator[str]:
    """Of a group its choices, of a switch both; others are free, or files, which bash knows."""
    if (folder := config_file(command).parent / name.lstrip("+")).is_dir():
        yield from (f"{name}={file.stem} " for file in folder.glob("*.yaml") if file.stem != "base")
    elif any(one.name == name and one.value in ("true", "false") for one in composed(command)[0]):
        yield from (f"{name}=true ", f"{name}=false ")


def _is_choice(override: str) -> bool:
    name, _, value = override.partition("=")
    return (config_folder() / name / f"{value}.yaml").is_file()
