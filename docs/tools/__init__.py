"""What builds the site of the documentation, and what the tests hold it to.

In: Markdown of docs/ and of the root, notebooks with their outputs, faces and docstrings read from their source.
Out: pages, navigation and figures for MkDocs; the commands that the documentation shows.
Never: an import of the product to describe it, but where a figure is computed by it; anything from the network.
"""
