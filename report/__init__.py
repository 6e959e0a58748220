"""Typesetting: executed notebooks become one HTML and one PDF report.

``merge`` joins the notebooks, ``blocks`` reads their published outputs, ``document``
orders and numbers it, ``pandoc`` converts the prose, ``html`` and ``pdf`` are
nbconvert exporters with their templates, ``output`` writes the files. ``contents`` writes the
parts around the notebooks, ``currency`` decides whether a report is up to date, and ``errors``
holds the exception raised where one cannot be made.
"""
