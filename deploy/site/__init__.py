"""The site of the documents: Sphinx reads the repository's Markdown as it stands. ``make docs`` writes it.

Rooms: __main__ → conf, built → navigation, reference.
"""
