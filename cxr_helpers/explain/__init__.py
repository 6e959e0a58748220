"""Heat maps that attribute a network's prediction to regions of the image, and their evaluation.

It may import ``models``, ``data``, ``phantoms`` and ``system``.
"""
