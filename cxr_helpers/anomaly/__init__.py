"""Anomaly: detectors fitted on normal images alone, by reconstruction error or by distance.

It may import ``models`` and the rooms below it (``data``, ``phantoms``, ``system``).
"""
