"""Helpers of the chest X-ray notebooks: each module computes one thing, none narrates.

Modules that need no TensorFlow never import it, so that the tools and tests start fast.
"""
