"""A finished run to play with in a notebook: one image, every network, every change at once.

It may import all other rooms.
"""
