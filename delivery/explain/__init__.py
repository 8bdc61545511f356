"""Why somebody got a message or did not: decided once, for the page and for the API."""
