"""Proves that a mix belongs to a stem, and says what has to be done to it before it can help with the repair."""
