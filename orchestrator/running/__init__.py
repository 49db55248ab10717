"""A plan comes in, and the environments, devices and weights that its shards need.
Workers that were watched and judged go out as records, tables and a report.
The command line is not known here, nor what an array means: workers alone compute.
"""
