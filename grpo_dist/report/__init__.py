"""Reports on a run directory: a table in the terminal, a JSON summary, one self-contained HTML page."""
