"""Repairs files: reads, aligns, analyses, repairs and writes them."""
