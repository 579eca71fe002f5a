"""The laws, by kind; `tests/models/common.py` puts them together."""
