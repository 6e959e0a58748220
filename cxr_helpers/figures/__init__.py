"""Figures: charts of numbers, grids of radiographs, and their display with one caption everywhere.

It takes arrays and tables, and may import nothing else of this package.
"""
