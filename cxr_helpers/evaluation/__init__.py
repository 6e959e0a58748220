"""Evaluation: metrics with bootstrap intervals, calibration, shortcut groups and score tables.

It takes arrays and tables, and may import nothing else of this package.
"""
