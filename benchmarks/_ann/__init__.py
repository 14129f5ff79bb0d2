"""The parts of `benchmarks/ann.py`: data sets, peers behind one protocol, measuring, report and plots."""
