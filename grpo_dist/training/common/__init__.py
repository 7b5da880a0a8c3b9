"""What every stage process needs."""
