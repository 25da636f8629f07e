"""Where the operators stand among torch's: a copy of this folder under another name must not take their place."""

NAMESPACE = str(__package__).replace(".", "_")
"""Two libraries of one name in a process free each other's functions: torch then crashes at the next call."""
