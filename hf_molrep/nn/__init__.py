"""Layers used unchanged by two or more methods."""
