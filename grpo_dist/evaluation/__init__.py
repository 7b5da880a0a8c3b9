"""Base against trained model: what the answers of both say, with intervals. No model is loaded here."""
