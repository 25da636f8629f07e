"""The sequence model: embeddings of a stay in, one estimate a step and lab out."""
