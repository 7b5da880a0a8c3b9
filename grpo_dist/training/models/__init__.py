"""Loading models, generating from them, and scoring their tokens."""
