"""The one error that is meant for a person."""


class UserError(Exception):
    """Something the user can mend: the message is one line that says what was wrong and what to do.

    The command line prints it without a traceback and exits with status 2.
    """
