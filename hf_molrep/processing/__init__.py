"""Molecules to features of one molecule: what every processor is made of."""
