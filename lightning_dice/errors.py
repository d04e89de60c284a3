"""What a command ends with besides a fault of its own."""


class InputError(ValueError):
    """A file or a setting is not usable; errors the user can fix, reported in one line.

    The message is a single line that names the file or setting, the value found, what was expected and what to do.
    Commands print it without a traceback and exit with 1.
    """


class Interrupted(BaseException):
    """The user stopped the work, and what it had reached is saved.

    No `Exception`, so that nothing takes it for a failure: a grid stops with the cell that it reaches.
    """
