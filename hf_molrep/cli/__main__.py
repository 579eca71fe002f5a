"""`python -m hf_molrep.cli` is `hf-molrep`."""

from . import main

if __name__ == "__main__":  # the worker processes of `--workers` import this file
    raise SystemExit(main())
