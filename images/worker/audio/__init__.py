"""A file of any kind and content comes in, as its user has it.
Float32 waves at every rate that is wanted go out, with the file's hash, length and flags, or one `AudioError`.
Models, windows, shards and events are not known here.
"""
