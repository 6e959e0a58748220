"""Neural networks for grey images, their training and embeddings, and nearest neighbours on these.

It may import ``data``, ``phantoms`` and ``system``.
"""
