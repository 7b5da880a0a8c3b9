"""Problems: where they come from, how they become prompts, and which are trained on or held out."""
