"""The benchmarks from their official addresses."""
