"""Pages for people, and in ``tools`` what builds a site of them."""
