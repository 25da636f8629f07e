"""The command line's sub-commands."""
