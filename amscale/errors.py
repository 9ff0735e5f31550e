"""The one exception that means "the user can mend this"."""


class InputError(Exception):
    """Bad input: one line that names what was given, what is allowed and what to do.

    Commands print it without a traceback and exit with status 2.
    """
