"""Tensors in, tensors out: one folder a kernel, the selective scan is a wheel of its own too.

In: tensors, on a CPU or a GPU.
Out: tensors, and every gradient.
Never: a file of data, a patient, an import of another layer.
"""
