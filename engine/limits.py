"""Limits that engine and bridge share; imports nothing, so the command line can start with it."""

#: Largest weight of an adapter in a blend.
MAX_WEIGHT = 1.5
MAX_COMPLEMENT = 0.5  # of a repair, what may be had from the rest of the song: no more than from the stem itself
