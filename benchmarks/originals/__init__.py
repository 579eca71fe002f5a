"""How the authors' code of a method is loaded and run beside ours. It is imported from a folder, never copied here."""
