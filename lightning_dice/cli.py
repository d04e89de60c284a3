"""A command: Hydra around an ordinary function, and one clear line for errors that the user can fix."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypeGuard

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from lightning_dice import settings
from lightning_dice.config import config_file, config_folder
from lightning_dice.errors import InputError, Interrupted
from lightning_dice.usage import usage
from lightning_dice.validation import checked

FIXABLE = (InputError, HydraException, OmegaConfBaseException)
WRITING = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG,
)  # fmt: skip
STOPPED = 130  # exit status after Ctrl-C, as shells have it


def command(name: str, function: str | None = None, paths: Sequence[str] = ()) -> NoReturn:
    """Be `python -m lightning_dice.NAME`: tell what can be set, or do it, and exit.

    Stands at the top of the command's file, before its imports, which take seconds: help and refused settings need none
    of them. They are done once the settings hold.

    What the user can fix is printed in one line on standard error and exits with 1: an `InputError` of ours, an
    override that Hydra refuses, a folder that cannot be written. Anything else is a fault of ours and keeps its
    traceback. A job of a multirun that fails does not stop the others; at the end each job's line is told, with what
    its function returned.

    Args:
        name: of the module, of the YAML file of its configuration, and of its model in `settings`.
        function: of the module, which gets the configuration; by default it goes by the same name.
        paths: settings whose values are taken as they stand on the command line. Hydra's grammar would read the commas
            and equal signs in a run folder's name as its own.
    """
    jobs: list[str] = []  # what came of those of a multirun, as far as they run in this process
    kind = getattr(settings, f"{name.capitalize()}Settings")

    def task(config: DictConfig) -> str:
        try:
            checked(config, kind)
            work = getattr(import_module(f"lightning_dice.{name}"), function or name)
            # Disabled, also of what was imported just now.
            configure_log(HydraConfig.get().job_logging)  # type: ignore[arg-type]  # it is a DictConfig
            result = work(config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                if not _is_fixable(error):
                    traceback.print_exc()
                print(f"error: {_line(error)}", file=sys.stderr)
                jobs.append(f"{' '.join(HydraConfig.get().overrides.task)}: failed: {_line(error)}")
            elif _is_fixable(error):  # here, before Hydra adds lines of its own
                _leave(error)
            raise  # in a multirun, Hydra goes on with the next job
        jobs.append(str(result))
        return jobs[-1]

    sys.argv[1:] = [_quoted(argument, paths) for argument in sys.argv[1:]]
    file = config_file(name)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # pass its exceptions on instead of printing them
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(usage(name, [argument for argument in sys.argv[1:] if not argument.startswith("-")]))
        else:
            hydra.main(version_base="1.3", config_path=str(file.parent), config_name=file.name)(task)()
    except Exception as error:
        if jobs:
            _tell(jobs)
            sys.exit(1)
        if _is_fixable(error):
            _leave(error)
        raise
    except (Interrupted, KeyboardInterrupt) as stop:
        if jobs:
            _tell(jobs)
        print(f"{stop or 'stopped'}; the same command goes on", file=sys.stderr)
        sys.exit(STOPPED)
    if len(jobs) > 1:
        _tell(jobs)
    sys.exit()


def _tell(jobs: Sequence[str]) -> None:
    print("\n" + "\n".join(jobs))


def _quoted(argument: str, paths: Sequence[str]) -> str:
    """An override in which Hydra takes for a text what is one: a path, or a choice that looks like a number."""
    name, is_override, value = argument.partition("=")
    is_choice = (config_folder() / name).is_dir() and re.fullmatch(r"[\d.eE+-]+|true|false", value, re.IGNORECASE)
    is_list = value[:1] == "[" and value[-1:] == "]"
    if not is_override or not (name in paths or is_choice) or value[is_list : is_list + 1] in ("'", '"'):
        return argument
    if is_list:
        return f"{name}=[{','.join(map(_text, _paths(value[1:-1])))}]"
    return f"{name}={_text(value)}"


def _text(value: str) -> str:
    """As a text of Hydra's grammar."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _paths(listed: str) -> list[str]:
    """Paths between commas, which may hold commas of their own: each is the longest that exists, or else goes on
    through the KEY=VALUE that a run's name is made of."""
    parts, found = listed.split(","), []
    while parts:
        lengths = range(len(parts), 0, -1)
        exists = [n for n in lengths if Path(",".join(parts[:n]).strip()).expanduser().exists()]
        named = [n for n in lengths if all(re.match(r"[\w.]+=[^/]*$", part) for part in parts[1:n])]
        count = (exists or named)[0]
        found.append(",".join(parts[:count]).strip())
        del parts[:count]
    return found


def _is_fixable(error: Exception) -> bool:
    """An error that the user can fix: in the input, or in where the output goes, such as a full disk."""
    return isinstance(error, FIXABLE) or _is_about_writing(error)


def _is_about_writing(error: Exception) -> TypeGuard[OSError]:
    return isinstance(error, OSError) and error.errno in WRITING


def _leave(error: Exception) -> None:
    print(f"error: {_line(error)}", file=sys.stderr)
    sys.exit(1)


def _line(error: Exception) -> str:
    """What is wrong, and what could stand there instead."""
    if isinstance(error, InputError):
        return str(error)
    if _is_about_writing(error):
        return f"{error.filename or 'output'}: {error.strerror}; allow writing there, make room, or give another folder"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name}: no such choice; expected one of {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        quoted = "'SETTING=\"VALUE\"'"
        return f"{error.override}: expected SETTING=VALUE; a value with =, commas or brackets in quotes, {quoted}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: not given; add {error.full_key}=… to the command"
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.parent_node is not None:
        group, _, name = str(cause.full_key).rpartition(".")
        known = ", ".join(str(key) for key in cause.parent_node if key != "hydra")
        if not known and (config_folder() / group / f"{name}.yaml").is_file():
            return f"{cause.full_key}: not chosen; add {group}={name}"
        if not known:
            return f"{cause.full_key}: {group} is null; give it whole, as '{group}={{{name}: …}}'"
        return f"{cause.full_key}: no such setting; expected one of {known}" + (f" in {group}" if group else "")
    return " ".join(str(error).split())
