"""People and templates from files.

`recipients` and `templates` are the operations. Below them a file of people goes through: `lines` (bytes to text
lines), `delimited` and `objects` (CSV and NDJSON lines to records with line numbers), `columns` (what a CSV header
means), `values` (what one cell or JSON value may be), `staging` (everything that happens inside PostgreSQL).
"""
