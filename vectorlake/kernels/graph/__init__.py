"""A quantised graph of vectors: records, construction and beam search, compiled. Knows arrays only."""
