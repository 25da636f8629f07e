"""Neural networks and losses: tensors in, tensors out, each with its frozen configuration."""
