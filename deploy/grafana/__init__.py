"""Grafana's boards as Python, from which ``make dashboards`` writes ``dashboards/*.json``.

Five boards of fifty panels are some thousand lines of JSON, of which a reader would care for a tenth: titles, queries,
units, limits. Those stand in ``boards/``; ``panels`` has the shape that Grafana 12 takes (schema version 41).
"""
