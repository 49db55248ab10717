"""HOW the process of one shard is started: an environment, a shard's file and what it may use come in.
The command goes out that an engine runs, in a virtual environment or in a container.
On which machine it runs, and what follows from its end, are not known here.
"""
