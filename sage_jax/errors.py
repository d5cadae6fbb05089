"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and the way out."""
