"""Window encoders: a prepared 30 s window in, an embedding out."""
