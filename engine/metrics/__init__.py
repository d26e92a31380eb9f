"""Measures of a repair, with and without the true stem."""
