"""Shared code of the benchmarks: data, checkpoints, columns, selection, timers, ceilings, profiles, reports."""
