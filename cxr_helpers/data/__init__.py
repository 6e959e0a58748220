"""Images and labels: sources, layouts, decoding, duplicates, splits, and the published dataset.

It may import ``phantoms`` and ``system``.
"""
