"""The errors that whoever runs the benchmark can act on."""


class UserError(Exception):
    """Its message is one line that says what is wrong and what to do."""
