"""Process tools: process trees, the reaper, ending with the parent, free ports."""
