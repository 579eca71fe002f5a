"""Marks that transformers' common model tests carry (see `test_transformers_common.py`)."""

MARKS = [
    *["accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test"],
    *["order", "slow", "torch_compile_test"],
]


def pytest_configure(config):
    for mark in MARKS:
        config.addinivalue_line("markers", f"{mark}: of transformers' common model tests")
