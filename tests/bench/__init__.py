"""How fast Tollbook is, and how much memory it takes, beside what users would pick instead. See docs/benchmarks.md."""
