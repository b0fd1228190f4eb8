"""Data sets of images: one file for each, which registers itself, and what they share."""
