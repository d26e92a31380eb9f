"""Makes the training material: gathers sources, renders songs and singing, separates remixes, and writes the pool."""
