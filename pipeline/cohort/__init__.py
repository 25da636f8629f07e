"""Who is in: cut into sequences and pieces, split, aligned, scaled; and the scored set."""
