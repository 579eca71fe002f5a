"""The laws of DESIGN section 6, by kind; `tests/models/common.py` puts them together."""
