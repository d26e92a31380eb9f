"""What people read after a repair or an analysis: pages, pictures and tables."""
