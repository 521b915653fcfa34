"""Delimited text: CSV, TSV and their dialects."""
