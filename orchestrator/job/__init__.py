"""A job file, flags and a folder of audio come in, as their users wrote them.
A checked `JobSpec` and the items to work on go out; whatever is wrong with a job is said here.
What has been done before, on which machine it runs and how a model computes are not known here.
"""
