"""Where job scripts that were rendered before the rooms were redrawn find their two programs."""
