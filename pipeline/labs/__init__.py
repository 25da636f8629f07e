"""Lab rows in; clean events, and what was known at a time, out."""
