"""An output folder comes in, or two of them, or this machine.
What is damaged, different or missing goes out, and how to mend it.
How arrays are made is not known here: what is computed again goes through a run like any job.
"""
