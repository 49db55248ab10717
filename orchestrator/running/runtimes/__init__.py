"""HOW the process of one shard is started. A shard and its mounts come in, a command goes out.
Neither engines nor what a failure means are known here.
A runtime is one file and one line below; `runtime: auto` takes the first that does not hesitate.
"""

from orchestrator.running.runtimes.base import Runtime
from orchestrator.running.runtimes.docker import DockerRuntime
from orchestrator.running.runtimes.venv import VenvRuntime

RUNTIMES: dict[str, type[Runtime]] = {"docker": DockerRuntime, "venv": VenvRuntime}
