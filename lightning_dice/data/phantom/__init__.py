"""Synthetic abdominal CTs with labels, written as an ordinary data set."""
