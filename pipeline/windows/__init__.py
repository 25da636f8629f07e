"""Records in, usable 30 s windows with their quality out."""
