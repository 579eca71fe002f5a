"""What several benchmarks need, once: data, checkpoints, columns, selection, timers, ceilings, profiles, reports."""
