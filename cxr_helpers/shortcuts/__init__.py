"""How well the border of an image, or its metadata without any pixel, predicts the class.

It may import ``models``, ``data``, ``phantoms`` and ``system``.
"""
