"""The one error a person is meant to read."""


class InputError(Exception):
    """Something given to the program cannot be used.

    The message is one line that says what is wrong and what to do about it.
    The command line prints it and exits with 2; the page shows it.
    """
