"""A trained model over many molecules."""
