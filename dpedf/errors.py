"""The one kind of error that is the user's to mend."""


class UserError(Exception):
    """What the user gave is wrong: one line says what was found, where, and what was expected.

    A run that meets one leaves with status 2, before any training.
    """
