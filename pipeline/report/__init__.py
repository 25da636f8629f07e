"""Numbers in; pages, pictures and tables for people out."""
