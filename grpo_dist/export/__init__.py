"""Exporting a trained model from the run: the request, the model card, and the upload to the Hub."""
