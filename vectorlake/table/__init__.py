"""One table, where effects happen: reading, writing, committing, verifying."""
