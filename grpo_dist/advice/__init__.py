"""RFT, SFT or preference tuning: what decides it, and what a data file tells about that."""
