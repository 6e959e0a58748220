"""Helpers of the chest X-ray notebooks, in rooms whose imports have one direction.

``system`` ← ``phantoms`` ← ``data`` ← ``models`` ← ``shortcuts``, ``anomaly``, ``explain`` ←
``pipeline`` ← ``explore``; ``evaluation`` and ``figures`` import no other room. A module that needs
no TensorFlow does not import it, so that tools and tests start fast.
"""
