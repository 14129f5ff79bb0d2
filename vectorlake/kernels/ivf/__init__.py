"""Compiled parts of inverted files: rotation, codes, look-up tables, scanning and selection."""
