"""Embeddings on disk or in a bucket, whole or not at all."""
