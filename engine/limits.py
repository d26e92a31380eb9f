"""Limits that engine and bridge share; imports nothing, so the command line can start with it."""

#: Largest weight of an adapter in a blend.
MAX_WEIGHT = 1.5
