"""Run `hf-molrep` as `python -m hf_molrep.cli`."""

from . import main

if __name__ == "__main__":  # worker processes of `--workers` import this file
    raise SystemExit(main())
