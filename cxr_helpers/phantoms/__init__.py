"""Synthetic chest radiographs of children, drawn from a seed, with the ground truth of each lesion.

It may import ``system``.
"""
