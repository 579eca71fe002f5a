"""NumPy to batched tensors; files to datasets."""
