"""An output folder comes in, with the events that workers have appended to its files.
Every path below it, the ledger of what was produced, the manifest and `load` go out.
Jobs, plans and processes are not known here: a folder is read where nothing but its files is left.
"""
