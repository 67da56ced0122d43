"""The one exception that a person is meant to read."""


class CellularError(Exception):
    """A mistake that its reader can mend: the message is one line and says what to do.

    Commands print it without a traceback and exit with 2. Invalid arrays raise `ValueError` instead.
    """
