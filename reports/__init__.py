"""What people read after a repair or an analysis: pages, figures and tables."""
