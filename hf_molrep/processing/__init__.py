"""Molecules to features: the parts that processors share."""
