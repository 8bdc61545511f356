"""The whole service on one machine with invented people, to look at and to try things on.

Keep this file free of imports: the settings ask ``environment`` whether a demo runs.
"""
