"""A job that has written `prosody` comes in: its records, and where their arrays are.
A token model or an encoder goes out, as a folder that a later job can name.
How it is learned is not known here: a worker in the environment of `prosody` does that, by a shard of kind `fit`.
"""
