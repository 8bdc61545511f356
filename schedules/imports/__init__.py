"""People and templates from files.

The operations are `recipients` and `templates`. A file of people goes up through these rooms:

    uploads                     files from a page: kept in pieces, done by a worker
    recipients                  the whole file, in one transaction
    merging                     from there into the profiles
    staging                     what happens inside PostgreSQL: copy, compare
    csv_rows, ndjson_rows       records to rows ready for COPY, or bad lines
    delimited, columns          CSV: records with line numbers; what the header means
    values, rows, lines         one value; one row; bytes to lines of text

`template_files` reads what `templates` saves.
"""
