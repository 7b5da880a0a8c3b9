"""Answers by type: read from text (`parse`), compared within their type (`equal`)."""
