"""Everything that makes training material: sources, songs, singers, separators and the pool."""
