class LocalServicesError(Exception):
    """An embedded service can't run. The text says which, why, and what to do about it."""
