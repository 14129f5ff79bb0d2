"""Index kinds behind one protocol: train a model, build segments, search and merge them. No table is known here."""
