"""Load and run the authors' code of a method, for comparison. It is imported from a folder, never copied here."""
