"""Facts, files and words that everything rests on; this room knows no patient."""
