"""Faults in the sources of the report, as opposed to bugs in the typesetting."""


class ReportError(ValueError):
    """Prose or a notebook refers to a missing name or violates a contract; the message says where."""
