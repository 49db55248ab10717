"""The answers about files that a plan is decided by."""

import pathlib

from orchestrator.environments import definitions
from orchestrator.files import sha256_of
from orchestrator.job.items import Source
from orchestrator.output.contexts import Contexts
from orchestrator.output.folder import OutputDir
from orchestrator.output.ledger import Ledger
from orchestrator.planning.keys import ModelPlan
from worker.protocol import Facts, Record


class Look:
    """What planning asks about files: all of its I/O."""

    def __init__(self, audio: str, output: OutputDir) -> None:
        self._audio = audio
        self._output = output
        self._locks: dict[str, bool] = {}
        self._hashes: dict[str, str] = {}  # of files that were read for this plan
        self.read: dict[str, Facts] = {}  # what no run knows yet, by item

    def sha256(self, source: Source, ledger: Ledger) -> str:
        """Return the hash of a source, from the cache while its size and times are the same; "" if unreadable."""
        seen = ledger.sources.get(source.id)
        if seen is not None and source.was(seen):
            return seen.sha256
        path = pathlib.Path(self._audio, source.file)
        if source.file not in self._hashes:
            try:
                self._hashes[source.file] = sha256_of(path) if source.size >= 0 and path.is_file() else ""
            except OSError:
                self._hashes[source.file] = ""
        found = self._hashes[source.file]
        if not found:
            return ""
        ledger.sources[source.id] = self.read[source.id] = source.facts(found)
        return found

    def present(self, path: str, size: int | None) -> bool:
        """Return whether an array is there, with that size."""
        return self._output.holds(path, size)

    def intact(self, record: Record) -> bool:
        """Return whether an array is what its record says, to the byte."""
        place = self._output.place(record.path)
        try:
            return place is not None and sha256_of(place) == record.sha256
        except OSError:
            return False

    def strict(self, record: Record, model: ModelPlan) -> bool:
        """Return whether lock and backend of a record are today's."""
        if record.context not in self._locks:
            found = Contexts(self._output.contexts).read(record.context)
            environment = definitions.find(model.environment)
            locks = [environment.lock_sha256(variant) for variant in environment.spec.locks]
            device = str(found.get("device", "cpu")).partition(" ")[0]
            backend = model.extractor.asked(device=device).describe().get("backend")
            same = found.get("lock") in locks and found.get("details", {}).get("backend") == backend
            self._locks[record.context] = same
        return self._locks[record.context]
