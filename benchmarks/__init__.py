"""Measurements of quality and speed. Each is a command that prints Markdown for docs/results.md."""
