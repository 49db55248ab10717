"""A model for tests that runs in an environment outside the tree, with a module of that environment."""

import dataclasses
import typing as tp

from tone import Tone


@dataclasses.dataclass
class Elsewhere(Tone):
    """Tone, with a gain that only its environment knows."""

    environment = "my_env"

    def load(self, device: str, files: tp.Mapping[str, str]) -> None:
        """Ask the environment's module."""
        import own_numbers

        self.gain = own_numbers.GAIN
