"""People, templates and schedules as files, which ``schedules.imports`` takes in again without a loss.

recipients          people, streamed, as CSV or NDJSON
cells               what a person is in CSV and NDJSON
templates           templates, catalogues and topics: a JSON file each
schedules           schedules as NDJSON
"""
