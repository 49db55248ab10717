"""A shard comes in: items to take, models to run over them, and the device that was granted.
Arrays and contexts in the output folder go out, and an event for whatever happened.
The host and its other shards are not known here, nor what any one model computes.
"""
