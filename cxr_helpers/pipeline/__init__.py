"""The run and its stages: what is declared, what is stale, how notebooks are run, what they scored.

It may import every other room; no other room imports it.
"""
