"""Pure values of the table format (snapshot, manifest, fragment, deletion vector, ref) and their codecs."""
