"""What a user can mend, told in one line."""


class InputError(ValueError):
    """A file or a setting is not usable.

    The message is a single line that names the file or setting, the value found, what was expected and what to do.
    Commands print it without a traceback and exit with 1.
    """
