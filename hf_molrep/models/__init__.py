"""One folder per method, and the table of methods in `auto.py`."""
