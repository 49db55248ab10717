"""Declared checkpoints come in: from a package index, a hub or an address, each with its hash.
Verified files in the cache go out, taken from archives of which nothing is installed or executed.
Which job needs them, and what a model does with them, are not known here.
"""
