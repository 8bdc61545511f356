"""A private PostgreSQL and two Redis servers for demo, tests and development, and a supervisor of processes.

Linux and macOS. Keep this package and its parents free of imports: the keeper starts through them.
"""
