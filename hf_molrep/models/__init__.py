"""One folder per method; `auto.py` holds the table of them."""
