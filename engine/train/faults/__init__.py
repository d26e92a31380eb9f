"""Faults of separated stems, drawn at random from many mechanisms."""
