"""Problems: where they come from, how they become prompts, and which of them are trained on or held out."""
