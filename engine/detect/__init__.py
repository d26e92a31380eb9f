"""Finds artefacts in a stem: a severity for each type, over time and frequency."""
