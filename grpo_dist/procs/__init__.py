"""Process tools: walking and ending process trees, and free ports."""
