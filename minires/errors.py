"""The one exception for a user's mistake: the front door prints it without a traceback and exits with 2."""


class InputError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do."""
