"""Formats: what a table is read from and written to."""
