"""Neural networks and losses: tensors in, tensors out, each with its frozen configuration.

In: configurations, weights, tensors.
Out: ``nn.Module`` classes and losses, each with its configuration beside it.
Never: a file of patients, a loop over files of data.
"""
