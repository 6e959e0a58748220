"""What is wrong with the report's own sources, as opposed to a bug of the typesetting."""


class ReportError(ValueError):
    """Prose or a notebook names what is not there, or breaks a contract; the message says where."""
