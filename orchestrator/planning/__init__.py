"""A checked job, its audio and the ledger of its output folder come in.
What is done, what is to do and the shards that would do it go out; nothing is started.
Processes, containers and devices are not known here.
"""
