"""A folder of `images/` comes in: its `env.yaml`, its locks and the modules of its models.
A virtual environment or a container image that is ready goes out, and which GPUs this machine has.
Items, plans and outputs are not known here: to build, nobody needs to know what will run inside.
"""
