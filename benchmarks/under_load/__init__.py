"""What the benchmarks that hurt a running service share: clients and their verdicts, accounts, faults, and what processes hold."""
