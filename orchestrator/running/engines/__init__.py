"""WHERE shards run. Jobs come in: a shard and what it needs. Events and complete ends go out.
What a failure means for the run is not known here; nor does a job name a path or process of this host.
An engine is one file and one line below.
"""

import typing as tp

from orchestrator.running.engines.base import Engine, Site
from orchestrator.running.engines.local import LocalEngine

ENGINES: dict[str, tp.Callable[[Site], Engine]] = {"local": LocalEngine}
