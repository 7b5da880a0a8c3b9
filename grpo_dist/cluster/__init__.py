"""Old module paths, which job scripts rendered up to version 0.1 still call."""
