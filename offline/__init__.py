"""Files: read, align, repair and write them."""
