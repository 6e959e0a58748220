"""The run and its stages: what is declared, what is stale, how notebooks are run, what they scored.

It may import every room but ``explore``, which alone imports it.
"""
