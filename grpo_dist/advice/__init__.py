"""RFT, SFT or preference tuning: the decision rules, and what a data file says about them."""
