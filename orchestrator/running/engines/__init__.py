"""WHERE shards run: a shard comes in, with the command that starts its worker and the files it writes.
What its worker says and how it ended go out.
Environments, containers and what follows from an end are not known here.
"""
